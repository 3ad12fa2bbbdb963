"""Early fusion: one LSTM stack over what all modalities say at each word."""

from __future__ import annotations

import pytest
import torch
from tests.models.conftest import DIMS, TASK, random_batch
from torch import nn

from moodal.batch import Batch
from moodal.models import FusionModel, create_model
from moodal.models.ef_lstm import joined
from moodal.types import InputError


def fitted(**options: int | float) -> FusionModel:
    torch.manual_seed(0)
    model = create_model("ef_lstm", DIMS, TASK, **options)
    model.fit_standardisation(random_batch(40, seed=1))
    return model


def one_by_one(batch: Batch, row: int) -> torch.Tensor:
    """(T, D) of one utterance, word by word, modality by modality; zeros for one that is missing."""
    parts = {m: x.select(torch.tensor([row])).values for m, x in batch.inputs.items()}
    words = max(len(x) for x in parts.values())
    rows = []
    for i in range(words):
        rows.append(torch.cat([x[i] if len(x) else torch.zeros(DIMS[m]) for m, x in parts.items()]))
    return torch.stack(rows)


def test_each_word_reads_its_features_of_all_modalities_and_zeros_for_a_missing_one() -> None:
    batch = random_batch(6).without("audio", torch.arange(6) == 2).without("text", torch.arange(6) == 4).aligned()
    x = joined(batch)
    for row in range(6):
        assert torch.equal(x.select(torch.tensor([row])).values, one_by_one(batch, row))


@pytest.mark.parametrize("layers", [1, 3])
def test_it_is_torchs_stack_of_lstms_over_the_real_words_of_each_utterance(layers: int) -> None:
    model = fitted(layers=layers, hidden=5).eval()
    batch = model.prepare(random_batch(6))
    stack = nn.LSTM(sum(DIMS.values()), 5, num_layers=layers)
    for i, lstm in enumerate(model.lstms):
        for name, weight in lstm.named_parameters():
            stack.get_parameter(f"{name}_l{i}").data.copy_(weight)
    fused = model.fuse(batch)
    for row in range(6):
        _, (state, _) = stack(one_by_one(batch, row))
        torch.testing.assert_close(fused.embeddings["fusion"][row], state[-1])
        torch.testing.assert_close(fused.logits[row], model.head(state[-1]))


def test_dropout_is_between_the_layers_and_before_the_head_not_within_the_recurrence() -> None:
    """Without layers above, the last state is that of evaluation; with them, it is not."""
    batch = random_batch(6)
    for layers, same in ((1, True), (2, False)):
        model = fitted(layers=layers)
        states = [model.train(mode)(batch).embeddings["fusion"] for mode in (True, False)]
        assert torch.equal(*states) is same


def test_large_units_of_one_modality_do_not_drown_the_others() -> None:
    """What the package's norm does to raw features: here the same audio in other units changes nothing."""
    batch, train = random_batch(6), random_batch(40, seed=1)
    out = []
    for unit in (1.0, 1e4):
        torch.manual_seed(0)
        model = create_model("ef_lstm", DIMS, TASK)
        for b in (train, batch):
            b.inputs["audio"].values.mul_(unit)
        model.fit_standardisation(train)
        out.append(model.eval()(batch).logits)
    torch.testing.assert_close(*out, atol=1e-5, rtol=1e-4)


def test_as_many_parameters_as_the_reference_has_on_ch_sims_but_its_norm_over_word_positions() -> None:
    model = create_model("ef_lstm", {"text": 768, "audio": 33, "vision": 709}, TASK)
    longest_text = 39
    assert sum(p.numel() for p in model.parameters()) == 215_761 - 2 * longest_text


@pytest.mark.parametrize(
    ("option", "message"), [({"layers": 0}, "layers must be at least 1"), ({"dropout": 1.0}, "dropout must be")]
)
def test_what_cannot_be_is_refused(option: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model("ef_lstm", DIMS, TASK, **option)
