"""What ``inspect`` is meant to notice is planted in a small data set and must be noticed; a clean one stays quiet."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from moodal.benchmark.dataset_figures import dataset_figure, draw_dataset
from moodal.data.inspection import inspect_dataset
from moodal.data.inspection_text import describe
from moodal.data.simulate import TABLE, simulate_sdme
from moodal.data.store import FeatureSpec, new_dataset, read_info
from moodal.types import InputError, Task, Utterance

CLASSES = ("calm", "tense")
SPLIT = ("train",) * 6 + ("valid",) * 2 + ("test",) * 2
NUM = 400


@pytest.fixture(scope="module")
def sdme(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspected") / "sdme"
    simulate_sdme(path, clips=1000)
    return path, inspect_dataset(path)


@pytest.fixture
def utterances():
    """Each with its own words, video and group; groups of four utterances of one split, both classes alike."""
    return [
        Utterance(
            id=f"u{i}",
            video=f"v{i // 40}{SPLIT[i % 10]}",
            start_s=float(10 * i),
            end_s=10.0 * i + 3,
            text=f"words number {i}",
            label=CLASSES[i // 10 % 2],
            split=SPLIT[i % 10],
            group=f"v{i // 40}{SPLIT[i % 10]}",
        )
        for i in range(NUM)
    ]


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    return {m: [rng.normal(size=(rng.integers(2, 9), d)) for _ in range(NUM)] for m, d in (("text", 6), ("audio", 4))}


@pytest.fixture
def inspect(tmp_path):
    def run(utterances, clips, task=None, licence="CC0-1.0", columns=None):
        task = task or Task(CLASSES)
        with new_dataset(tmp_path / "set", overwrite=True) as writer:
            for m, sequences in clips.items():
                dim = next(len(c[0]) for c in sequences if c is not None)
                spec = FeatureSpec("made", "1", m, dim, columns=tuple((columns or {}).get(m, ())))
                writer.write_features(spec, [u.id for u in utterances], sequences)
            writer.finish(utterances, task, name="set", licence=licence)
        return inspect_dataset(tmp_path / "set")

    return run


def warned(report, *words):
    return any(all(w in sentence for w in words) for sentence in report["warnings"])


# What it counts


def test_counts_and_agreement_are_what_was_simulated(sdme):
    path, report = sdme
    summary = read_info(path)["simulation"]
    assert report["utterances"] == 1000
    assert report["splits"] == {"train": 700, "valid": 150, "test": 150}
    for m in ("text", "audio", "vision"):
        found, made = report["agreement"]["with_label"][m], summary["agreement_counts"][m]
        assert found["labelled"] == 1000
        assert found["all"] == pytest.approx(sum(made.values()) / 1000)
        for c in TABLE:
            total = sum(counts[c] for counts in report["classes"].values())
            assert found["classes"][c] == pytest.approx(made[c] / total)
    assert report["baseline"]["constant"] == "angry"
    assert report["baseline"]["splits"]["test"] == report["classes"]["test"]["angry"] / 150
    assert report["bayes_accuracy"] == summary["bayes_accuracy"]["test"]


def test_the_probe_lies_between_the_constant_answer_and_the_limit(sdme):
    _, report = sdme
    for alone in report["alone"].values():
        assert report["baseline"]["splits"]["test"] < alone["test"] < report["bayes_accuracy"]


def test_a_clean_data_set_only_hears_about_its_size(sdme):
    _, report = sdme
    assert len(report["warnings"]) == 1
    assert warned(report, "150 test utterances", "±6.4 points")
    leakage = report["leakage"]
    assert not any(leakage.values())


def test_a_clean_small_data_set_is_not_warned_of_more(utterances, clips, inspect):
    report = inspect(utterances, clips)
    assert [w for w in report["warnings"] if "one accuracy is known to" not in w] == []


def test_lengths_and_dims_are_those_of_the_clips(utterances, clips, inspect):
    report = inspect(utterances, clips)
    assert report["dims"] == {"text": 6, "audio": 4}
    steps = [len(c) for c in clips["text"]]
    found = report["lengths"]["text"]
    assert (found["min"], found["median"], found["max"]) == (min(steps), np.median(steps), max(steps))
    assert sum(found["histogram"]["counts"]) == NUM


def test_report_is_json_and_text(sdme):
    _, report = sdme
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    text = describe(report)
    for said in (report["name"], "angry", "vision", "exact Bayes rule", "Warnings (1)"):
        assert said in text
    assert max(map(len, text.splitlines()[:30])) <= 120


def test_precision_is_the_binomial_interval(sdme):
    _, report = sdme
    assert report["precision"]["interval"] == pytest.approx(1.96 * np.sqrt(0.8 * 0.2 / 150))


# Leakage


def test_a_group_in_two_splits(utterances, clips, inspect):
    stray = next(i for i, u in enumerate(utterances) if u.split == "test")
    utterances[stray] = replace(utterances[stray], group=utterances[0].group)
    report = inspect(utterances, clips)
    assert report["leakage"]["groups"]["train/test"]["utterances"] == 1
    assert warned(report, "1 groups are in both train and test")


def test_a_speaker_in_two_splits_although_groups_are_not(utterances, clips, inspect):
    report = inspect([replace(u, speaker=f"s{i % 3}") for i, u in enumerate(utterances)], clips)
    assert report["leakage"]["groups"] == {}
    assert warned(report, "3 speakers are in both train and test", "100% of test")


def test_the_same_words_in_two_splits_however_they_are_written(utterances, clips, inspect):
    test = next(i for i, u in enumerate(utterances) if u.split == "test")
    utterances[test] = replace(utterances[test], text="  Words NUMBER\t0 ")
    report = inspect(utterances, clips)
    assert report["leakage"]["texts"]["train/test"]["groups"] == 1
    assert warned(report, "1 texts are in both train and test")


def test_the_same_clip_in_two_splits(utterances, clips, inspect):
    test = next(i for i, u in enumerate(utterances) if u.split == "test")
    clips["audio"][test] = clips["audio"][0].copy()
    report = inspect(utterances, clips)
    assert set(report["leakage"]["features"]) == {"audio"}
    assert warned(report, "1 identical audio clips are in both train and test")


def test_segments_of_two_splits_that_overlap(utterances, clips, inspect):
    test = next(i for i, u in enumerate(utterances) if u.split == "test")
    utterances[test] = replace(utterances[test], video=utterances[0].video, start_s=2.5, end_s=4.0)
    report = inspect(utterances, clips)
    assert report["leakage"]["overlapping_segments"] == {"train/test": 1}
    assert warned(report, "1 pairs of segments overlap")


def test_a_group_in_two_folds(utterances, clips, inspect):
    folded = [replace(u, split=None, fold=i % 4) for i, u in enumerate(utterances)]
    report = inspect(folded, clips)
    assert report["leakage"]["groups_across_folds"] > 0
    assert warned(report, "groups are in more than one fold")
    assert [f["utterances"] for f in report["folds"]] == [100] * 4
    assert "folds" in report["alone"]["text"]


# Features


def test_missing_is_counted_by_split_and_class(utterances, clips, inspect):
    gone = [i for i, u in enumerate(utterances) if u.split == "valid"][:5]
    for i in gone:
        clips["audio"][i] = None
    report = inspect(utterances, clips)
    assert report["missing"]["audio"]["splits"] == {"train": 0, "valid": 5, "test": 0}
    assert sum(report["missing"]["audio"]["classes"].values()) == report["missing"]["audio"]["all"] == 5
    assert warned(report, "audio is missing in 5 utterances")
    assert not warned(report, "absence")


def test_absence_that_tells_the_label(utterances, clips, inspect):
    for i, u in enumerate(utterances):
        if u.label == "tense" and i % 3:
            clips["audio"][i] = None
    assert warned(inspect(utterances, clips), "of tense and 0% of calm", "absence tells the label")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: [c * [1, 0, 1, 1] for c in x], ("audio", "1 of 4 columns never change", "energy")),
        (lambda x: [c * [1, 1, 1e6, 1] for c in x], ("audio", "differ in scale")),
        (lambda x: [c + 1e5 * (i == 7) for i, c in enumerate(x)], ("audio", "far outside the range", "pitch")),
        (lambda x: [c[:2] for c in x], ("audio", "exactly 2 steps")),
        (lambda x: [np.concatenate([c, np.zeros((3, 4))]) for c in x], ("audio", "400 clips end in all-zero steps")),
        (lambda x: [c * (i != 3) for i, c in enumerate(x)], ("audio", "1 clips are nothing but zeros")),
        (lambda x: [c[:1].repeat(4, 0) if i < 2 else c for i, c in enumerate(x)], ("audio", "2 clips", "never change")),
    ],
)
def test_sick_features_are_named(utterances, clips, inspect, spoil, words):
    clips["audio"] = spoil(clips["audio"])
    report = inspect(utterances, clips, columns={"audio": ("pitch", "energy", "jitter", "shimmer")})
    assert warned(report, *words)
    assert not warned(report, "text:")


def test_features_that_were_fitted_to_the_training_labels(utterances, clips, inspect):
    """They hold the label in train, and nothing elsewhere."""
    for i, u in enumerate(utterances):
        if u.split == "train":
            clips["text"][i] = clips["text"][i] + 3 * CLASSES.index(u.label)
    report = inspect(utterances, clips)
    assert report["alone"]["text"]["train"] > 0.9
    assert warned(report, "text", "seem fitted to the training labels")
    assert not warned(report, "audio", "seem fitted")


# Labels


def test_few_texts(utterances, clips, inspect):
    report = inspect([replace(u, text="kids are talking by the door") for u in utterances], clips)
    assert report["texts"]["distinct"] == 1
    assert warned(report, "1 different texts in 400 utterances")
    assert not warned(report, "texts are in both")  # said once, in the words that fit


def test_classes_that_are_rare_absent_or_shifted(utterances, clips, inspect):
    changed = [replace(u, label="calm" if u.split == "test" else u.label) for u in utterances]
    first = next(i for i, u in enumerate(changed) if u.split == "valid")
    changed = [replace(u, label="calm") if u.split == "valid" and i != first else u for i, u in enumerate(changed)]
    changed[first] = replace(changed[first], label="tense")
    report = inspect(changed, clips)
    assert warned(report, "test has no tense")
    assert warned(report, "valid has only 1 of tense")
    assert warned(report, "differ in their class shares")


def test_own_labels_that_are_copies(utterances, clips, inspect):
    copied = [replace(u, modality_labels={"audio": u.label}) for u in utterances]
    report = inspect(copied, clips)
    assert report["agreement"]["with_label"]["audio"]["all"] == 1
    assert warned(report, "audio's own label equals", "copied")


def test_agreement_between_modalities_counts_where_both_are_labelled(utterances, clips, inspect):
    own = [{"audio": "calm", "vision": "calm"}, {"audio": "calm", "vision": "tense"}, {"audio": "tense"}]
    report = inspect([replace(u, modality_labels=own[i % 3]) for i, u in enumerate(utterances)], clips)
    assert report["agreement"]["between"]["audio/vision"] == pytest.approx(0.5, abs=0.01)
    confusion = np.array(report["agreement"]["confusion"]["audio"])
    assert confusion.sum() == report["agreement"]["with_label"]["audio"]["labelled"] == NUM


def test_nobody_labelled_the_modalities(utterances, clips, inspect):
    assert inspect(utterances, clips)["agreement"] is None


def test_scores_instead_of_classes(utterances, clips, inspect):
    rng = np.random.default_rng(1)
    scores = rng.integers(-3, 4, NUM).astype(float)
    scored = [
        replace(u, label=None, score=s, modality_scores={"text": s, "audio": -s})
        for u, s in zip(utterances, scores.tolist(), strict=True)
    ]
    report = inspect(scored, clips, task=Task(low=-3, high=3))
    assert report["classes"] == {}
    counts = report["scores"]["test"]
    assert counts["negative"] + counts["zero"] + counts["positive"] == report["splits"]["test"]
    own = report["agreement"]["scores"]
    assert own["text"]["same_sign"] == 1
    assert own["audio"]["same_sign"] == pytest.approx((scores == 0).mean())
    assert own["audio"]["correlation"] == pytest.approx(-1)
    assert report["baseline"]["metric"] == "mae"
    assert "correlation" in describe(report)


def test_what_nothing_can_be_trained_on(utterances, clips, inspect):
    report = inspect([replace(u, split=None, group=None, label=None) for u in utterances], clips, licence="unknown")
    assert warned(report, "neither splits nor folds")
    assert warned(report, "400 of 400 utterances have no label")
    assert warned(report, "licence")
    assert report["alone"]["text"] is None
    assert "no split 400" in describe(report)


def test_a_changed_file_is_refused(utterances, clips, inspect, tmp_path):
    inspect(utterances, clips)
    (tmp_path / "set" / "features" / "text" / "spec.json").write_text("{}")
    with pytest.raises(InputError, match="has changed since it was written"):
        inspect_dataset(tmp_path / "set")


# The picture


def texts_of(figure):
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = []
    for ax in figure.axes:
        labels = [ax.xaxis.label, ax.yaxis.label, ax.title, ax._left_title, *ax.texts]
        for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            shown = (min(low, high), max(low, high))  # matplotlib keeps labels of ticks outside, and does not draw them
            labels += [t.label1 for t in axis.get_major_ticks() if shown[0] <= t.get_loc() <= shown[1]]
        legend = ax.get_legend()
        labels += legend.get_texts() if legend else []
        boxes += [(t.get_text(), t.get_window_extent(renderer)) for t in labels if t.get_text() and t.get_visible()]
    return boxes, figure.bbox


def assert_readable(figure):
    """No text leaves the picture; none lies on another (slanted tick labels are wider boxes than ink)."""
    boxes, page = texts_of(figure)
    for said, box in boxes:
        assert page.x0 <= box.x0, said
        assert box.x1 <= page.x1, said
        assert page.y0 <= box.y0, said
        assert box.y1 <= page.y1, said
    for (a, first), (b, second) in combinations(boxes, 2):
        slanted = {a, b} & {*TABLE, "calm", "tense", "negative", "zero", "positive"}
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert slanted or wide < 1 or high < 1, f"{a!r} lies on {b!r}"


def test_picture_of_the_simulated_set_is_readable(sdme, tmp_path):
    path, report = sdme
    figure = draw_dataset(path, report)
    assert_readable(figure)
    assert len(figure.axes) == 9
    dataset_figure(path, report, tmp_path / "new" / "sdme.png")
    assert (tmp_path / "new" / "sdme.png").read_bytes()[:4] == b"\x89PNG"


def test_picture_of_holes_scores_and_folds_is_readable(utterances, clips, inspect, tmp_path):
    clips["audio"] = [None if i % 7 == 0 else c for i, c in enumerate(clips["audio"])]
    scored = [
        replace(
            u, label=None, score=float(i % 7 - 3), modality_scores={"text": float(i % 5 - 2)}, split=None, fold=i % 3
        )
        for i, u in enumerate(utterances)
    ]
    report = inspect(scored, clips, task=Task(low=-3, high=3))
    figure = draw_dataset(tmp_path / "set", report)
    assert_readable(figure)
    said = {s for s, _ in texts_of(figure)[0]}
    assert "this data set has no vision" in said
    assert "nobody labelled audio alone" in said


def test_one_vector_per_clip_needs_no_histograms(utterances, clips, inspect, tmp_path):
    report = inspect(utterances, {m: [c[:1] for c in x] for m, x in clips.items()})
    figure = draw_dataset(tmp_path / "set", report)
    assert len(figure.axes) == 3
    assert "text 1 × 6, audio 1 × 4" in figure.get_suptitle()
    dataset_figure(tmp_path / "set", report, tmp_path / "set.svg")
    assert "<svg" in (tmp_path / "set.svg").read_text()
