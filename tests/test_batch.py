"""Ragged rows against loops that anyone can check, for any lengths, empty utterances and empty modalities included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from moodal.batch import Batch, Ragged, padding_mask

LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=7)
SEEDS = st.integers(0, 2**31)


def clips(lengths: list[int], seed: int, dim: int = 3) -> list[torch.Tensor]:
    """One (T, D) float64 tensor per utterance; far from zero, so that a centred formula has something to lose."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, dim, generator=generator, dtype=torch.float64) * 2 + 10 for n in lengths]


def ragged(rows: list[torch.Tensor]) -> Ragged:
    return Ragged(torch.cat(rows), torch.tensor([len(r) for r in rows]))


def apart(x: Ragged) -> list[torch.Tensor]:
    return list(torch.split(x.values, x.lengths.tolist()))


def same(found: Ragged, expected: list[torch.Tensor]) -> None:
    assert found.lengths.tolist() == [len(r) for r in expected]
    for a, b in zip(apart(found), expected, strict=True):
        assert_close(a, b, rtol=0, atol=0)


@given(LENGTHS, SEEDS)
def test_mean_and_deviation_are_over_real_steps_alone(lengths, seed):
    rows = clips(lengths, seed)
    zeros = torch.zeros(3, dtype=torch.float64)
    x = ragged(rows)
    assert_close(x.mean(), torch.stack([r.mean(0) if len(r) else zeros for r in rows]))
    assert_close(x.std(), torch.stack([r.std(0, correction=0) if len(r) else zeros for r in rows]))


@given(LENGTHS, SEEDS)
def test_last_is_the_last_real_step(lengths, seed):
    rows = clips(lengths, seed)
    expected = [r[-1] if len(r) else torch.zeros(3, dtype=torch.float64) for r in rows]
    assert_close(ragged(rows).last(), torch.stack(expected), rtol=0, atol=0)


@given(LENGTHS, SEEDS, st.data())
def test_select_takes_utterances_in_any_order_and_more_than_once(lengths, seed, data):
    rows = clips(lengths, seed)
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9))
    same(ragged(rows).select(torch.tensor(index, dtype=torch.int64)), [rows[i] for i in index])


@given(LENGTHS, SEEDS)
def test_starts_and_owners_say_where_each_step_belongs(lengths, seed):
    x = ragged(clips(lengths, seed))
    assert x.owner.tolist() == [i for i, n in enumerate(lengths) for _ in range(n)]
    assert x.starts.tolist() == [sum(lengths[:i]) for i in range(len(lengths))]


@given(LENGTHS, SEEDS)
def test_padding_and_back_is_the_same(lengths, seed):
    rows = clips(lengths, seed)
    padded = ragged(rows).padded()
    assert padded.shape == (len(rows), max(1, *lengths, 0), 3)
    same(Ragged.from_padded(padded, torch.tensor(lengths)), rows)


@given(LENGTHS, SEEDS, st.integers(0, 20), st.sampled_from([0.0, 7.0, float("nan"), float("inf")]))
def test_no_padding_of_any_length_or_content_is_seen(lengths, seed, more, content):
    rows = clips(lengths, seed)
    x = torch.full((len(rows), max(lengths) + more, 3), content, dtype=torch.float64)
    for i, r in enumerate(rows):
        x[i, : len(r)] = r
    found = Ragged.from_padded(x, torch.tensor(lengths))
    same(found, rows)
    assert torch.isfinite(found.mean()).all()
    assert torch.isfinite(found.std()).all()


@given(LENGTHS, SEEDS)
def test_what_is_padded_is_what_the_mask_says(lengths, seed):
    x = ragged(clips(lengths, seed)).padded(fill=-1.0)
    mask = padding_mask(torch.tensor(lengths), x.shape[1])
    assert mask.sum(1).tolist() == [x.shape[1] - n for n in lengths]
    assert (x[mask] == -1).all()
    assert (x[~mask] != -1).all()


@given(st.lists(st.booleans(), min_size=1, max_size=6), SEEDS)
def test_rows_are_one_step_each_and_absent_ones_none(present, seed):
    x = torch.cat(clips([len(present)], seed))
    same(Ragged.from_rows(x, torch.tensor(present)), [x[i : i + 1] if p else x[:0] for i, p in enumerate(present)])


def test_an_empty_modality_has_zeros_and_no_error():
    x = Ragged(torch.zeros(0, 4), torch.zeros(3, dtype=torch.int64))
    for pooled in (x.mean(), x.std(), x.last()):
        assert_close(pooled, torch.zeros(3, 4))
    assert x.padded().shape == (3, 1, 4)
    assert len(x.select(torch.tensor([2, 0]))) == 2


def test_no_utterances_are_a_batch_too():
    x = ragged(clips([2, 1], 0)).select(torch.tensor([], dtype=torch.int64))
    assert (len(x), x.dim, x.mean().shape, x.last().shape, x.padded().shape) == (0, 3, (0, 3), (0, 3), (0, 1, 3))


def test_gradients_reach_real_steps_through_every_pooling():
    x = ragged(clips([2, 0, 3], 1))
    values = x.values.clone().requires_grad_()
    y = Ragged(values, x.lengths)
    (y.mean().sum() + y.last().sum() + y.padded().sum()).backward()
    assert (values.grad != 0).all()


@pytest.mark.parametrize(
    ("values", "lengths", "said"),
    [
        (torch.zeros(4, 2), torch.tensor([1, 2]), "lengths add up to 3, but there are 4 steps"),
        (torch.zeros(4), torch.tensor([4]), "need values"),
        (torch.zeros(2, 2, 1), torch.tensor([2]), "need values"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(values, lengths, said):
    with pytest.raises(ValueError, match=said):
        Ragged(values, lengths)


@pytest.fixture
def batch():
    return Batch(
        {"vision": ragged(clips([1, 2, 0, 1], 2)), "text": ragged(clips([0, 3, 1, 2], 3, dim=2))},
        labels=torch.tensor([0, 1, 2, 0]),
        modality_labels={"text": torch.tensor([-1, 1, 1, 0])},
        groups=torch.tensor([5, 5, 6, 7]),
        ids=["a", "b", "c", "d"],
    )


def test_modalities_stand_in_one_order_whoever_made_the_batch(batch):
    assert list(batch.inputs) == ["text", "vision"]
    assert batch.dims == {"text": 2, "vision": 3}
    assert {m: p.tolist() for m, p in batch.present.items()} == {
        "text": [False, True, True, True],
        "vision": [True, True, False, True],
    }


def test_selecting_utterances_takes_everything_that_belongs_to_them(batch):
    part = batch.select(torch.tensor([3, 1]))
    assert part.ids == ["d", "b"]
    assert part.labels.tolist() == [0, 1]
    assert part.groups.tolist() == [7, 5]
    assert part.modality_labels["text"].tolist() == [0, 1]
    for m in batch.inputs:
        same(part.inputs[m], [apart(batch.inputs[m])[i] for i in (3, 1)])


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=4, max_size=4), SEEDS)
def test_without_takes_one_modality_from_the_named_rows_alone(gone, seed):
    rows = clips([1, 2, 0, 1], seed)
    whole = Batch({"text": ragged(rows), "audio": ragged(clips([1, 1, 1, 1], seed))})
    part = whole.without("text", torch.tensor(gone))
    same(part.inputs["text"], [r[:0] if g else r for r, g in zip(rows, gone, strict=True)])
    assert part.inputs["audio"] is whole.inputs["audio"]
    same(whole.inputs["text"], rows)


def test_without_rows_means_everywhere(batch):
    assert not batch.without("vision").present["vision"].any()
    assert batch.without("vision").inputs["text"] is batch.inputs["text"]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "inputs must be some of"),
        ({"smell": ragged(clips([1], 0))}, "inputs must be some of"),
        ({"text": ragged(clips([1], 0)), "audio": ragged(clips([1, 1], 0))}, "modalities differ in utterances"),
    ],
)
def test_inputs_that_no_model_could_read_are_refused(inputs, said):
    with pytest.raises(ValueError, match=said):
        Batch(inputs)


@pytest.mark.parametrize("lengths", [[4, 0, 1, 3], [4, 4, 4, 4], [9, 2, 7, 1]])
def test_resampled_steps_are_means_of_the_steps_they_cover(lengths: list[int]) -> None:
    torch.manual_seed(0)
    before = torch.tensor([7, 3, 2, 0])
    x = Ragged(torch.randn(12, 2), before)
    out = x.resampled(torch.tensor(lengths))
    expected = []
    for clip, steps in zip(torch.split(x.values, before.tolist()), lengths, strict=True):
        n = len(clip)
        for i in range(steps if n else 0):
            expected.append(clip[i * n // steps : -((-(i + 1) * n) // steps)].mean(0))
    torch.testing.assert_close(out.values, torch.stack(expected))
    assert out.lengths.tolist() == [k if n else 0 for n, k in zip(before.tolist(), lengths, strict=True)]


def test_aligned_gives_every_modality_the_steps_of_the_text() -> None:
    text = Ragged(torch.randn(5, 2), torch.tensor([3, 2, 0]))
    audio = Ragged(torch.randn(15, 3), torch.tensor([10, 1, 4]))
    vision = Ragged(torch.randn(8, 1), torch.tensor([0, 2, 6]))
    out = Batch({"text": text, "audio": audio, "vision": vision}).aligned()
    assert {m: x.lengths.tolist() for m, x in out.inputs.items()} == {
        "text": [3, 2, 0],
        "audio": [3, 2, 4],  # no text: as many as the shortest that is there
        "vision": [0, 2, 4],
    }
    again = out.aligned()
    assert all(torch.equal(again.inputs[m].values, x.values) for m, x in out.inputs.items())


def test_a_selection_is_copied_once_and_in_the_order_that_is_asked() -> None:
    x = Ragged(torch.arange(12.0).view(6, 2), torch.tensor([3, 0, 2, 1]))
    chosen = x.select(torch.tensor([2, 0]))
    order = torch.tensor([4, 0, 2])
    before = chosen.take(order)
    assert torch.equal(chosen.values, x.values[[3, 4, 0, 1, 2]])
    assert torch.equal(before, chosen.values[order])
    assert torch.equal(chosen.take(order), before)
    assert (chosen.dim, len(chosen), chosen.lengths.tolist()) == (2, 2, [2, 3])
    again = chosen.select(torch.tensor([1, 1]))  # a selection of a selection
    assert torch.equal(again.values, x.values[[0, 1, 2, 0, 1, 2]])
