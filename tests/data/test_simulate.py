"""The simulated SDME has the paper's statistics, and its posterior is the exact one."""

from itertools import pairwise, product

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from moodal.data.simulate import (
    CLIPS,
    PATTERNS,
    SENSES,
    TABLE,
    TEXT_AGREEMENT,
    Sense,
    draw_clips,
    draw_durations,
    draw_labels,
    exact_truth,
    label_law,
    lay_out,
    log_likelihood,
    make_channel,
    pattern_law,
    read_truth,
    simulate_sdme,
    systematic_counts,
)
from moodal.data.store import read_dataset, shared_groups
from moodal.types import MODALITIES, InputError

TEXT, AUDIO, VISION = range(3)


@pytest.fixture(scope="module")
def law():
    return label_law(TEXT_AGREEMENT)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "sdme"
    return path, simulate_sdme(path, clips=400, seed=3)


# The law of the labels


@pytest.mark.parametrize(
    "rates", [(0.65, 0.217, 0.989), (0.95, 0.999, 0.995), (1.0, 0.3, 0.2), (0.4, 0.3, 0.31), (0.0, 0.6, 0.7)]
)
def test_patterns_keep_the_margins_although_none_is_empty(rates):
    law = pattern_law(np.array(rates))
    assert len(set(map(tuple, PATTERNS.tolist()))) == 7
    assert PATTERNS.any(1).all()
    assert (law >= 0).all()
    np.testing.assert_allclose(law.sum(), 1)
    np.testing.assert_allclose(law @ PATTERNS, rates, atol=1e-9)


def test_patterns_are_independent_agreements_given_that_one_agrees():
    """The odds ratio of two agreements, the third agreeing, is 1."""
    law = dict(zip(map(tuple, PATTERNS.astype(int).tolist()), pattern_law(np.array([0.6, 0.5, 0.8])), strict=True))
    assert law[1, 1, 1] * law[1, 0, 0] == pytest.approx(law[1, 1, 0] * law[1, 0, 1])


def test_transition_is_what_enumerating_the_joint_law_gives(law):
    for m, y, k in product(range(3), range(5), range(5)):
        total = sum(
            p * (float(k == y) if a[m] else law.other[y, k]) for p, a in zip(law.patterns[y], PATTERNS, strict=True)
        )
        assert law.transition(MODALITIES[m])[y, k] == pytest.approx(total)


def test_expected_accuracy_of_vision_and_audio_labels_is_the_tables(law):
    assert CLIPS * law.prior @ np.diag(law.transition("vision")) == pytest.approx(3382)
    assert CLIPS * law.prior @ np.diag(law.transition("audio")) == pytest.approx(2492)


def test_a_label_that_does_not_agree_is_another_one_and_half_the_time_neutral(law):
    np.testing.assert_allclose(law.other.sum(1), 1)
    assert (np.diag(law.other) == 0).all()
    np.testing.assert_allclose(law.other[1:, 0], 0.5)
    np.testing.assert_allclose(law.other[0, 1:], 0.25)


# Drawing labels


def test_systematic_counts_round_without_bias():
    expected = np.array([0.2, 3.5, 1.3, 4.0])
    drawn = np.array([systematic_counts(expected, u) for u in (np.arange(1000) + 0.5) / 1000])
    np.testing.assert_allclose(drawn.mean(0), expected, atol=1e-3)
    assert (np.abs(drawn - expected) < 1).all()
    assert (drawn.sum(1) == 9).all()
    assert (np.abs(drawn[:, 1:3].sum(1) - 4.8) < 1).all()  # neighbours together, too


@pytest.mark.parametrize("seed", range(20))
def test_3667_clips_have_exactly_the_papers_counts(law, seed):
    y, agree, own = draw_labels(law, CLIPS, np.random.default_rng(seed))
    for c, (name, (total, vision, audio)) in enumerate(TABLE.items()):
        assert (y == c).sum() == total
        assert agree[y == c, VISION].sum() == vision
        assert agree[y == c, AUDIO].sum() == audio
        assert abs(agree[y == c, TEXT].sum() - TEXT_AGREEMENT[name] * total) < 2
    assert agree.any(1).all()
    assert ((own == y[:, None]) == agree).all()


def test_other_sizes_have_the_rates_in_expectation(law):
    clips, seeds = 101, 1500
    counts, agreeing, own_labels = np.zeros(5), np.zeros((5, 3)), np.zeros((3, 5, 5))
    for seed in range(seeds):
        y, agree, own = draw_labels(law, clips, np.random.default_rng(seed))
        n = np.bincount(y, minlength=5)
        assert (np.abs(n - clips * law.prior) < 1).all()
        counts += n
        np.add.at(agreeing, y, agree)
        for m in range(3):
            np.add.at(own_labels[m], (y, own[:, m]), 1)
    np.testing.assert_allclose(counts / seeds, clips * law.prior, atol=0.06)
    expected = (clips * law.prior)[:, None] * np.stack([np.diag(law.transition(m)) for m in MODALITIES], 1)
    np.testing.assert_allclose(agreeing / seeds, expected, atol=0.12)
    for m, name in enumerate(MODALITIES):
        joint = law.prior[:, None] * law.transition(name)
        np.testing.assert_allclose(own_labels[m] / own_labels[m].sum(), joint, atol=0.003)


# Layout


def test_splits_are_stratified_and_share_no_episode(law):
    rng = np.random.default_rng(0)
    y, _, own = draw_labels(law, CLIPS, rng)
    duration_s = draw_durations(CLIPS, rng)
    utterances = lay_out(y, own, duration_s, rng)
    sizes = {s: sum(u.split == s for u in utterances) for s in ("train", "valid", "test")}
    assert sizes == {"train": 2567, "valid": 550, "test": 550}
    for c in TABLE:
        of_class = [u for u in utterances if u.label == c]
        assert abs(sum(u.split == "test" for u in of_class) - 0.15 * len(of_class)) < 2
    assert shared_groups(utterances) == {}
    assert duration_s.mean() == pytest.approx(3.36, abs=0.06)
    assert (duration_s < 5).mean() > 0.9


def test_clips_of_an_episode_do_not_overlap(law):
    rng = np.random.default_rng(1)
    y, _, own = draw_labels(law, 300, rng)
    utterances = lay_out(y, own, draw_durations(300, rng), rng)
    placed = sorted((u.video, u.start_s, u.end_s) for u in utterances)
    for (video, _, end_s), (next_video, start_s, _) in pairwise(placed):
        assert video != next_video or end_s <= start_s


# Features and the exact posterior


def test_channel_is_undone_by_its_inverse():
    channel = make_channel(SENSES["audio"], np.random.default_rng(0))
    whitened = np.random.default_rng(1).standard_normal((7, 33))
    np.testing.assert_allclose(channel.to_whitened(channel.to_features(whitened)), whitened, atol=1e-9)
    assert np.linalg.norm(channel.mean[1] - channel.mean[0]) == pytest.approx(SENSES["audio"].separation)


def test_frames_have_the_moments_the_likelihood_assumes():
    """Covariance between two frames of a clip is the clip noise; within one frame, clip and frame noise."""
    channel = make_channel(Sense(4, 5.0, 2.0, 1.5), np.random.default_rng(0), difficulty=1.2)
    own = np.full(20_000, 2)
    clips = np.stack(list(draw_clips(channel, own, np.full(20_000, 2), np.random.default_rng(1))))
    white = channel.to_whitened(clips.astype(float)) - channel.mean[2]
    np.testing.assert_allclose(white.mean((0, 1)), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(white[:, 0].T), (1.2**2 + 1.8**2) * np.eye(4), atol=0.15)
    np.testing.assert_allclose(white[:, 0].T @ white[:, 1] / 20_000, 1.2**2 * np.eye(4), atol=0.15)


def test_posterior_equals_brute_force_over_all_frames_and_own_labels(law):
    """Every frame of every modality, as one big Gaussian, for each combination of y, pattern and own labels."""
    rng = np.random.default_rng(4)
    y, agree, own = draw_labels(law, 40, rng)
    y, agree, own = y[:6], agree[:6], own[:6]
    likelihood, slow = {}, {}
    for m, name in enumerate(MODALITIES):
        channel = make_channel(Sense(4, 5.0, 1.5, 2.0), rng)
        lengths = np.array([1, 2, 3, 1, 4, 2])
        clips = [c.astype(float) for c in draw_clips(channel, own[:, m], lengths, rng)]
        likelihood[name] = log_likelihood(channel, np.stack([c.mean(0) for c in clips]), lengths)
        slow[name] = np.array([[slow_density(channel, c, k) for k in range(5)] for c in clips])
    truth = exact_truth(law, likelihood, agree)
    for i in range(6):
        joint, relevant = np.zeros(5), np.zeros(3)
        for label, (p, pattern), *k in product(range(5), [*enumerate(PATTERNS)], range(5), range(5), range(5)):
            weight = law.prior[label] * law.patterns[label, p]
            for m, name in enumerate(MODALITIES):
                given = float(k[m] == label) if pattern[m] else law.other[label, k[m]]
                weight *= given * slow[name][i, k[m]]
            joint[label] += weight
            relevant += weight * (np.array(k) == label)
        np.testing.assert_allclose(truth.posterior[i], joint / joint.sum(), rtol=1e-5)
        np.testing.assert_allclose(truth.relevance[i], relevant / joint.sum(), rtol=1e-5)
        for name in MODALITIES:
            alone = law.prior * (law.transition(name) @ slow[name][i])
            np.testing.assert_allclose(truth.single[name][i], alone / alone.sum(), rtol=1e-5)


def slow_density(channel, clip, k):
    steps = len(clip)
    stretch = np.diag(channel.scale) @ channel.mix @ np.diag(channel.spread)
    mean = np.tile(channel.offset + stretch @ channel.mean[k], steps)
    noise = channel.clip_noise**2 * np.ones((steps, steps)) + channel.frame_noise**2 * np.eye(steps)
    covariance = np.kron(noise, stretch @ stretch.T)
    return multivariate_normal(mean, covariance).pdf(clip.ravel())


def test_posterior_is_calibrated(law):
    """Of 20,000 clips: what is believed with probability p is so in a share p, for the label and for agreement."""
    rng = np.random.default_rng(7)
    y, agree, own = draw_labels(law, 20_000, rng)
    likelihood = {}
    for m, name in enumerate(MODALITIES):
        channel = make_channel(Sense(8, 5.0, 2.5, 2.0), rng)
        lengths = rng.integers(1, 20, len(y))
        width = np.sqrt(channel.clip_noise**2 + channel.frame_noise**2 / lengths)[:, None]
        means = channel.to_features(channel.mean[own[:, m]] + width * rng.standard_normal((len(y), 8)))
        likelihood[name] = log_likelihood(channel, means, lengths)
    truth = exact_truth(law, likelihood, agree)
    right = truth.posterior.argmax(1) == y
    assert truth.posterior.max(1).mean() == pytest.approx(right.mean(), abs=0.01)
    believed = [(truth.posterior.max(1), right), *((truth.relevance[:, m], agree[:, m]) for m in range(3))]
    for p, happened in believed:
        for low in np.arange(0, 1, 0.1):
            bin_ = (p >= low) & (p < low + 0.1)
            if bin_.sum() > 400:
                assert happened[bin_].mean() == pytest.approx(p[bin_].mean(), abs=0.09)


# The folder


def test_folder_is_a_data_set_with_its_truth(simulated):
    path, summary = simulated
    dataset = read_dataset(path)
    assert dataset.batch.dims == {m: SENSES[m].dim for m in MODALITIES}
    assert "truth.parquet" in dataset.info["files"]
    assert dataset.info["simulation"] == summary
    for m in MODALITIES:
        assert len(set(dataset.batch.inputs[m].lengths.tolist())) > 5
        assert dataset.batch.inputs[m].lengths.min() >= 1
    truth = read_truth(path, dataset.batch.ids)
    labels = dataset.batch.labels.numpy()
    assert (truth.posterior.argmax(1) == labels).mean() == summary["bayes_accuracy"]["all"]
    for i, m in enumerate(MODALITIES):
        assert (truth.agree[:, i] == (dataset.batch.modality_labels[m].numpy() == labels)).all()


def test_truth_can_be_computed_again_from_the_stored_features(simulated):
    path, _ = simulated
    dataset = read_dataset(path)
    world = [np.random.default_rng(s) for s in np.random.SeedSequence(3).spawn(8)][2::2]
    likelihood = {
        m: log_likelihood(
            make_channel(SENSES[m], rng),
            dataset.batch.inputs[m].mean().double().numpy(),
            dataset.batch.inputs[m].lengths.numpy(),
        )
        for m, rng in zip(MODALITIES, world, strict=True)
    }
    truth = read_truth(path, dataset.batch.ids)
    again = exact_truth(label_law(TEXT_AGREEMENT), likelihood, truth.agree)
    np.testing.assert_allclose(again.posterior, truth.posterior, atol=1e-3)  # float32 means
    np.testing.assert_allclose(again.relevance, truth.relevance, atol=1e-3)


def test_truth_comes_in_the_order_asked_for(simulated):
    path, _ = simulated
    both = read_truth(path, ["clip-00007", "clip-00002"])
    np.testing.assert_array_equal(both.posterior[1], read_truth(path, ["clip-00002"]).posterior[0])
    with pytest.raises(InputError, match="no clip called 'nobody'"):
        read_truth(path, ["nobody"])


def test_same_seed_same_bytes_and_another_seed_differs(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        simulate_sdme(tmp_path / name, clips=40, seed=seed)

    def content(name):
        root = tmp_path / name
        return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    assert content("a") == content("b")
    assert (
        content("a")[next(p for p in content("a") if p.name == "truth.parquet")]
        != (tmp_path / "c" / "truth.parquet").read_bytes()
    )


def test_a_harder_data_set_has_a_lower_limit_and_the_same_labels(tmp_path):
    easy = simulate_sdme(tmp_path / "easy", clips=300)
    hard = simulate_sdme(tmp_path / "hard", clips=300, difficulty=2.0)
    assert hard["bayes_accuracy"]["all"] < easy["bayes_accuracy"]["all"] - 0.1
    assert hard["agreement_counts"] == easy["agreement_counts"]


def test_the_default_has_room_between_one_modality_and_all_of_them(law):
    """The stated level of difficulty, on 20,000 clips: Bayes rule .87 to .90, vision alone .65 to .76."""
    rng = np.random.default_rng(0)
    y, agree, own = draw_labels(law, 20_000, rng)
    duration_s = draw_durations(len(y), rng)
    likelihood = {}
    for m, name in enumerate(MODALITIES):
        channel = make_channel(SENSES[name], rng)
        lengths = np.maximum(1, np.rint(duration_s * SENSES[name].rate_hz))
        width = np.sqrt(channel.clip_noise**2 + channel.frame_noise**2 / lengths)[:, None]
        noise = rng.standard_normal((len(y), SENSES[name].dim))
        means = channel.to_features(channel.mean[own[:, m]] + width * noise)
        likelihood[name] = log_likelihood(channel, means, lengths)
    truth = exact_truth(law, likelihood, agree)
    assert 0.87 < (truth.posterior.argmax(1) == y).mean() < 0.90
    alone = {m: (truth.single[m].argmax(1) == y).mean() for m in MODALITIES}
    assert max(alone, key=alone.get) == "vision"
    assert 0.65 < alone["vision"] < 0.76


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 5}, "clips must be at least 20"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"difficulty": 0.0}, "difficulty multiplies the noise"),
        ({"text_agreement": {"hapy": 0.5}}, "no class called 'hapy'; did you mean 'happy'"),
        ({"text_agreement": {"happy": 0.5}}, "no rate for neutral, sad, angry, anxious"),
        ({"text_agreement": {**TEXT_AGREEMENT, "sad": 1.2}}, "text_agreement of sad must lie in"),
    ],
)
def test_what_cannot_be_simulated_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        simulate_sdme(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_a_real_data_set_has_no_truth(tmp_path):
    with pytest.raises(InputError, match="only simulated data sets know the truth"):
        read_truth(tmp_path, [])
