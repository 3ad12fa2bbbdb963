"""What models say of utterances, against what it is defined to be."""

import itertools
import math

import pytest
import torch

from moodal.batch import Batch, Ragged
from moodal.models import create_model
from moodal.serving.judgement import UNFAMILIAR, Member, judge, shapley_shares
from moodal.types import Task

TASK = Task(("sad", "happy", "angry"))
DIMS = {"text": 5, "audio": 3, "vision": 4}


def batch(num=6, seed=0):
    made = torch.Generator().manual_seed(seed)
    lengths = {m: torch.randint(1, 4, (num,), generator=made) for m in DIMS}
    return Batch({m: Ragged(torch.randn(int(n.sum()), DIMS[m], generator=made), n) for m, n in lengths.items()})


def member(name="lf_dnn", task=TASK, temperature=None, seed=0, **options):
    torch.manual_seed(seed)
    return Member(create_model(name, DIMS, task, **options).eval(), temperature)


def test_probabilities_are_those_of_the_model_divided_by_its_temperature():
    one = member(temperature=2.5)
    with torch.no_grad():
        expected = (one.model(batch()).logits.double() / 2.5).softmax(1)
    assert torch.allclose(judge([one], batch()).answer, expected)


def test_several_members_answer_with_their_mean():
    members = [member(seed=s, temperature=t) for s, t in ((0, 1.5), (1, None))]
    each = [judge([m], batch()).answer for m in members]
    assert torch.allclose(judge(members, batch()).answer, (each[0] + each[1]) / 2)


def test_a_score_stays_within_its_interval():
    task = Task(low=-0.01, high=0.01)
    said = judge([member(task=task)], batch()).answer
    assert said.shape == (6, 1)
    assert float(said.abs().max()) == pytest.approx(0.01)


def test_relevance_is_the_models_own_where_it_has_one():
    mre = member("mre")
    said = judge([mre], batch())
    with torch.no_grad():
        own = mre.model(batch()).relevance
    assert said.is_own
    assert torch.allclose(said.relevance.float(), own, atol=1e-6)


@pytest.mark.parametrize("name", ["mre", "lf_dnn", "lmf", "late_average"])
def test_relevance_sums_to_one_over_what_is_there(name):
    some = batch().without("audio", torch.tensor([True, False] * 3))
    said = judge([member(name)], some)
    assert torch.allclose(said.relevance.sum(1), torch.ones(6, dtype=torch.float64))
    assert (said.relevance[::2, 1] == 0).all()
    assert (said.relevance >= 0).all()


def test_where_nothing_is_there_nothing_is_relevant():
    nothing = batch()
    for m in DIMS:
        nothing = nothing.without(m)
    assert (judge([member()], nothing).relevance == 0).all()


def test_shapley_shares_are_the_mean_over_all_orders_of_what_a_modality_adds():
    one, rows = member(), batch()
    answer = judge([one], rows).answer
    best = answer.argmax(1)

    def value(kept):
        only = rows
        for m in set(DIMS) - set(kept):
            only = only.without(m)
        return judge([one], only).answer[torch.arange(6), best].log()

    expected = torch.zeros(6, 3, dtype=torch.float64)
    for order in itertools.permutations(DIMS):
        for place, m in enumerate(order):
            expected[:, list(DIMS).index(m)] += value(order[: place + 1]) - value(order[:place])
    expected = (expected / math.factorial(3)).clamp(min=0)
    with torch.no_grad():
        assert torch.allclose(shapley_shares([one], rows, answer), expected, atol=1e-9)


def test_the_only_modality_that_a_model_listens_to_has_all_the_relevance():
    torch.manual_seed(0)
    deaf = create_model("lf_dnn", DIMS, TASK).eval()
    with torch.no_grad():
        for m in ("text", "audio"):
            for weight in deaf.encoders[m].parameters():
                weight.zero_()
    relevance = judge([Member(deaf)], batch()).relevance
    moved = relevance[:, 2] > 0  # where vision speaks for the answer at all
    assert moved.any()
    assert torch.allclose(relevance[moved, 2], torch.ones(int(moved.sum()), dtype=torch.float64))


def test_alone_is_what_the_model_says_without_the_others():
    one = member()
    said = judge([one], batch())
    with torch.no_grad():
        expected = one.model(batch().without("text").without("vision")).logits.double().softmax(1)
    assert torch.allclose(said.alone["audio"], expected)


@pytest.mark.parametrize("name", ["mre", "lmf", "late_average"])
def test_where_only_one_is_there_the_answer_is_what_it_says_alone(name):
    only = batch().without("text").without("vision")
    said = judge([member(name)], only)
    assert torch.equal(said.alone["audio"], said.answer)


def test_an_utterance_is_judged_alike_alone_and_among_others():
    rows, one = batch(), member("mre")
    together = judge([one], rows)
    for i in range(6):
        single = judge([one], rows.select(torch.tensor([i])))
        assert torch.allclose(single.answer[0], together.answer[i], atol=1e-6)
        assert torch.allclose(single.relevance[0], together.relevance[i], atol=1e-6)


def test_features_far_from_the_training_split_are_called_unfamiliar():
    one, rows = member(), batch()
    one.model.fit_standardisation(rows)
    assert not any(flags.any() for flags in judge([one], rows).unfamiliar.values())
    values = rows.inputs["audio"].values.clone()
    values[0] += 100 * UNFAMILIAR
    far = Batch({**rows.inputs, "audio": Ragged(values, rows.inputs["audio"].lengths)})
    said = judge([one], far).unfamiliar
    assert said["audio"].tolist() == [True] + [False] * 5
    assert not said["text"].any()
