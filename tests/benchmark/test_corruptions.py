from collections import Counter

import pytest
import torch

from moodal.batch import Batch, Ragged
from moodal.benchmark.corruptions import CORRUPTIONS, Setting, corrupt, deviation_of
from moodal.types import MODALITIES, InputError, Task

EMOTIONS = Task(("neutral", "happy", "sad"))
DIMS = {"text": 4, "audio": 3, "vision": 2}


def make_batch(num=41, *, steps=20, missing=True, task=EMOTIONS):
    """Clips whose every number is different; some lack a modality."""
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    for k, (m, dim) in enumerate(DIMS.items()):
        lengths = torch.randint(1, steps, (num,), generator=generator)
        if missing:
            lengths[k::10] = 0
        inputs[m] = Ragged(torch.randn(int(lengths.sum()), dim, generator=generator), lengths)
    labels = torch.arange(num) % 3 if task.classes else torch.linspace(task.low, task.high, num)
    return Batch(inputs, labels, ids=[f"clip {i}" for i in range(num)])


def setting_of(batch, task=EMOTIONS, seed=0):
    return Setting({m: deviation_of(x) for m, x in batch.inputs.items()}, batch, task, seed)


def clips(x):
    """The steps of every clip, as bytes."""
    return [part.numpy().tobytes() for part in torch.split(x.values, x.lengths.tolist())]


def hits(before, after):
    return [a != b for a, b in zip(clips(before), clips(after), strict=True)]


def severities():
    return [(name, s) for name, c in CORRUPTIONS.items() for s in range(1, len(c.levels))]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_0_changes_nothing(name):
    batch = make_batch()
    assert CORRUPTIONS[name].levels[0] == 0

    same = corrupt(batch, name, MODALITIES, 0, setting_of(batch))
    made = {m: CORRUPTIONS[name].make(batch, m, 0.0, setting_of(batch)) for m in MODALITIES}

    for m, x in batch.inputs.items():
        assert clips(same.inputs[m]) == clips(made[m]) == clips(x)


@pytest.mark.parametrize(("name", "severity"), severities())
def test_a_clip_meets_the_same_in_any_batch(name, severity):
    batch = make_batch()
    setting = setting_of(batch)
    whole = corrupt(batch, name, MODALITIES, severity, setting)
    some = torch.tensor([30, 2, 17, 0])

    part = corrupt(batch.select(some), name, MODALITIES, severity, setting)

    for m in MODALITIES:
        assert clips(part.inputs[m]) == [clips(whole.inputs[m])[i] for i in some]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_hits_the_modality_that_is_named_and_another_seed_hits_otherwise(name):
    batch = make_batch(300)
    once = corrupt(batch, name, ["audio"], 3, setting_of(batch))
    again = corrupt(batch, name, ["audio"], 3, setting_of(batch))
    other = corrupt(batch, name, ["audio"], 3, setting_of(batch, seed=1))

    assert once.inputs["text"] is batch.inputs["text"]
    assert any(hits(batch.inputs["audio"], once.inputs["audio"]))
    assert clips(once.inputs["audio"]) == clips(again.inputs["audio"]) != clips(other.inputs["audio"])


@pytest.mark.parametrize("name", [n for n, c in CORRUPTIONS.items() if n != "gaussian"])
def test_a_higher_severity_hits_all_that_a_lower_one_hit(name):
    batch = make_batch(200)
    before = [False] * len(batch)
    steps = batch.inputs["vision"].lengths
    for severity in range(1, len(CORRUPTIONS[name].levels)):
        made = corrupt(batch, name, MODALITIES, severity, setting_of(batch)).inputs["vision"]
        hit = hits(batch.inputs["vision"], made)
        assert all(now for now, was in zip(hit, before, strict=True) if was)
        if "swap" != name != "opposite":
            assert bool((made.lengths <= steps).all())
            steps = made.lengths
        before = hit


@pytest.mark.parametrize(("severity", "factor"), list(enumerate((0, 0.25, 0.5, 1, 2, 4))))
def test_gaussian_noise_has_the_stated_deviation_feature_by_feature(severity, factor):
    batch = make_batch(2000)
    stated = {m: torch.arange(1.0, dim + 1) for m, dim in DIMS.items()}

    made = corrupt(batch, "gaussian", MODALITIES, severity, Setting(stated, batch, EMOTIONS))

    for m, x in batch.inputs.items():
        noise = made.inputs[m].values - x.values
        torch.testing.assert_close(noise.std(0), factor * stated[m], rtol=0.03, atol=1e-6)
        assert bool((noise.mean(0).abs() <= 0.04 * factor * stated[m]).all())


def test_the_deviation_is_that_of_all_steps_and_0_of_a_constant():
    values = torch.cat([torch.randn(9000, 2) * 3 + 1e3, torch.full((9000, 1), 7.0)], 1)
    found = deviation_of(Ragged(values, torch.tensor([4000, 0, 5000])))
    torch.testing.assert_close(found, values.double().std(0, correction=0).float())
    assert found[2] == 0
    assert deviation_of(Ragged(torch.zeros(0, 2), torch.zeros(3, dtype=torch.int64))).tolist() == [0, 0]


@pytest.mark.parametrize("name", ["drop_steps", "drop_span", "random_missing", "shift"])
def test_the_stated_share_of_steps_is_lost_and_the_others_stay_in_order(name):
    batch = make_batch(3000)
    x = batch.inputs["text"]
    for severity, level in enumerate(CORRUPTIONS[name].levels):
        made = corrupt(batch, name, ["text"], severity, setting_of(batch)).inputs["text"]
        assert 1 - len(made.values) / len(x.values) == pytest.approx(level, abs=0.015)
        before, after = (torch.split(v.values[:, 0], v.lengths.tolist()) for v in (x, made))
        for i in range(30):
            kept = torch.isin(before[i], after[i])
            assert torch.equal(before[i][kept], after[i])
            if name == "drop_span":
                assert int((~kept).diff(prepend=torch.tensor([False])).sum()) <= 2  # one stretch
            if name == "shift" and len(after[i]):
                assert kept[0] or kept[-1]


def test_a_clip_that_loses_its_only_step_is_missing():
    batch = make_batch(200, steps=2, missing=False)
    for name in ("drop_steps", "drop_span"):
        made = corrupt(batch, name, ["audio"], 5, setting_of(batch))
        assert int(made.inputs["audio"].lengths.sum()) == pytest.approx(20, abs=12)
        assert int(made.inputs["audio"].lengths.max()) == 1


def test_a_dropped_modality_is_the_batch_without_it():
    batch = make_batch()
    made = corrupt(batch, "drop_modality", ["audio"], 5, setting_of(batch))
    assert clips(made.inputs["audio"]) == clips(batch.without("audio").inputs["audio"])

    some = corrupt(batch, "drop_modality", ["audio"], 2, setting_of(batch))
    lost = (some.inputs["audio"].lengths == 0) & batch.present["audio"]
    assert 0 < int(lost.sum()) < len(batch) / 2 + 5
    assert clips(some.inputs["audio"]) == clips(batch.without("audio", lost).inputs["audio"])


@pytest.mark.parametrize("severity", range(6))
@pytest.mark.parametrize("num", [40, 41, 2, 3])
def test_a_swap_keeps_the_multiset_of_clips(num, severity):
    batch = make_batch(num, missing=num > 3)
    made = corrupt(batch, "swap", ["vision"], severity, setting_of(batch)).inputs["vision"]
    assert Counter(clips(made)) == Counter(clips(batch.inputs["vision"]))
    if severity == 5:
        assert hits(batch.inputs["vision"], made) == batch.present["vision"].tolist()


@pytest.mark.parametrize("task", [EMOTIONS, Task(low=-3, high=3)])
def test_the_opposite_is_always_of_another_class(task):
    batch = make_batch(61, task=task)
    side = batch.labels if task.classes else batch.labels.sign()
    owner = {clip: int(s) for clip, s in zip(clips(batch.inputs["text"]), side, strict=True) if clip}

    made = corrupt(batch, "opposite", ["text"], 5, setting_of(batch, task)).inputs["text"]

    for own, there, clip in zip(side.tolist(), batch.present["text"].tolist(), clips(made), strict=True):
        assert owner[clip] != own if there else clip == b""


def test_an_opposite_that_does_not_exist_is_refused():
    batch = make_batch(8)
    one = Batch(batch.inputs, torch.ones(8, dtype=torch.int64), ids=batch.ids)
    with pytest.raises(InputError, match="no test clip of another class has text"):
        corrupt(one, "opposite", ["text"], 5, setting_of(one))


def test_missing_modalities_have_the_stated_rate_and_one_always_stays():
    batch = make_batch(3000, missing=False)
    for severity, rate in enumerate(CORRUPTIONS["modality_missing"].levels):
        made = corrupt(batch, "modality_missing", MODALITIES, severity, setting_of(batch))
        there = torch.stack(list(made.present.values()), 1).double()
        assert 1 - float(there.mean()) == pytest.approx(min(rate, 2 / 3), abs=0.01)
        assert bool((there.sum(1) >= 1).all())
        assert (1 - there.mean(0)).tolist() == pytest.approx([min(rate, 2 / 3)] * 3, abs=0.03)  # all alike


def test_what_is_missing_stays_missing_and_nothing_is_all_right():
    batch = make_batch(20)
    nothing = batch.without("text")
    for name, c in CORRUPTIONS.items():
        made = corrupt(nothing, name, MODALITIES, len(c.levels) - 1, setting_of(nothing))
        assert not made.present["text"].any()


def test_what_does_not_exist_is_refused():
    batch = make_batch(4)
    with pytest.raises(InputError, match="no corruption called 'gausian'; did you mean 'gaussian'"):
        corrupt(batch, "gausian", ["text"], 1, setting_of(batch))
    with pytest.raises(InputError, match="gaussian has severities 0 to 5, got 6"):
        corrupt(batch, "gaussian", ["text"], 6, setting_of(batch))
