"""MRE+: its formulas against loops over every combination of own labels, and what it must find in planted data."""

import itertools
import math

import numpy as np
import pytest
import torch

from moodal.batch import Batch, Ragged
from moodal.models import create_model
from moodal.models.mre_plus import Assumption, factors, fit_experts, mixed, some_agrees
from moodal.types import InputError, Task

CLASSES, DIMS = 3, {"text": 6, "audio": 5, "vision": 4}
TASK = Task(("sad", "happy", "angry"))


def planted(num=900, seed=0, agree=(0.6, 0.8, 0.95), informative=(True, True, True)):
    """Own labels that agree with y at these rates (one always does), and features around the own label's centre."""
    rng = np.random.default_rng(seed)
    y = rng.integers(CLASSES, size=num)
    while True:
        agrees = rng.random((num, 3)) < agree
        if agrees.any(1).all():
            break
        agrees[~agrees.any(1)] = True
        break
    own = np.where(agrees, y[:, None], (y[:, None] + rng.integers(1, CLASSES, (num, 3))) % CLASSES)
    inputs = {}
    for i, (m, dim) in enumerate(DIMS.items()):
        centres = np.random.default_rng(100 + i).normal(0, 2.5, (CLASSES, dim)) * informative[i]
        values = centres[own[:, i]] + rng.normal(size=(num, dim))
        inputs[m] = Ragged.from_rows(torch.tensor(values, dtype=torch.float32))
    return Batch(inputs, torch.tensor(y), groups=torch.arange(num) // 5), agrees


def fitted(batch, seed=0):
    model = create_model("mre_plus", DIMS, TASK)
    model.fit_standardisation(batch)
    model.fit(batch, seed)
    return model.eval()


def random_case(seed=0, num=4):
    made = torch.Generator().manual_seed(seed)
    evidence = torch.randn(num, 3, CLASSES, generator=made, dtype=torch.float64)
    transitions = torch.rand(3, CLASSES, CLASSES, generator=made, dtype=torch.float64) + 0.1
    present = torch.rand(num, 3, generator=made) < 0.7
    present[0] = True
    return evidence * present[:, :, None], transitions / transitions.sum(2, keepdim=True), present


def test_the_posterior_is_the_sum_over_all_own_labels_of_which_one_agrees():
    evidence, transitions, present = random_case()
    said, agrees = factors(evidence, transitions, present)
    logits = said.sum(1) + some_agrees(agrees, transitions, present).log()
    for i in range(len(evidence)):
        there = [m for m in range(3) if present[i, m]]
        if not there:
            continue
        for y in range(CLASSES):
            total, law = 0.0, 0.0
            for own in itertools.product(range(CLASSES), repeat=len(there)):
                if y not in own:
                    continue
                p = math.prod(float(transitions[m, y, k]) for m, k in zip(there, own, strict=True))
                law += p
                total += p * math.exp(sum(float(evidence[i, m, k]) for m, k in zip(there, own, strict=True)))
            assert float(logits[i, y]) == pytest.approx(math.log(total / law), abs=1e-9)


def test_relevance_is_the_probability_that_the_own_label_is_the_utterances():
    batch, _ = planted(300)
    model = fitted(batch)
    some = batch.select(torch.arange(5))
    with torch.no_grad():
        output = model(some)
        evidence = torch.stack(list(model.evidence(model.prepare(some)).values()), dim=1)
    transitions = torch.stack([model.get_buffer(f"transition_{m}") for m in DIMS])
    prior = model.get_buffer("log_prior").exp()
    for i in range(5):
        joint, agree = 0.0, torch.zeros(3, dtype=torch.float64)
        for y, *own in itertools.product(range(CLASSES), repeat=4):
            if y not in own:
                continue
            law = sum(
                math.prod(float(transitions[m, y, k]) for m, k in enumerate(o))
                for o in itertools.product(range(CLASSES), repeat=3)
                if y in o
            )
            p = float(prior[y]) / law
            p *= math.prod(float(transitions[m, y, k]) * math.exp(float(evidence[i, m, k])) for m, k in enumerate(own))
            joint += p
            agree += p * torch.tensor([float(k == y) for k in own])
        assert torch.allclose(output.relevance[i].double(), agree / joint, atol=1e-5)


def test_it_finds_how_often_each_modality_agrees():
    batch, agrees = planted(1500)
    model = fitted(batch)
    for i, m in enumerate(DIMS):
        learned = float(model.get_buffer(f"transition_{m}").diagonal().mean())
        assert learned == pytest.approx(float(agrees[:, i].mean()), abs=0.08)


def test_its_relevance_knows_which_modality_is_right_in_which_clip():
    from sklearn.metrics import roc_auc_score

    model = fitted(planted(1200)[0])
    unseen, agrees = planted(600, seed=1)
    with torch.no_grad():
        relevance = model(unseen).relevance
    for i in range(3):
        assert roc_auc_score(agrees[:, i], relevance[:, i]) > 0.85


def test_a_modality_that_knows_nothing_says_nothing():
    batch, _ = planted(600, informative=(False, True, True))
    model = fitted(batch)
    with torch.no_grad():
        output = model(batch)
    assert output.relevance[:, 0].mean() == pytest.approx(1 / CLASSES, abs=0.02)
    without = batch.without("text")
    with torch.no_grad():
        assert (model(without).logits.argmax(1) == output.logits.argmax(1)).float().mean() > 0.99


def test_features_of_another_class_lose_their_relevance():
    batch, _ = planted(1200)
    model = fitted(batch)
    y, vision = batch.labels, batch.inputs["vision"].values
    donors = torch.tensor([int(torch.nonzero(y != label)[i % 300]) for i, label in enumerate(y)])
    swapped = Batch({**batch.inputs, "vision": Ragged.from_rows(vision[donors])}, y, groups=batch.groups)
    with torch.no_grad():
        before, after = model(batch).relevance[:, 2], model(swapped).relevance[:, 2]
    assert after.mean() < before.mean() - 0.15  # it is the one that is mostly right, so the others must outweigh it


def test_no_step_of_the_fit_makes_the_labels_less_likely():
    """The E- and M-steps climb: more of them end at least as high."""
    from moodal.models import mre_plus

    batch, _ = planted(400)
    x = {m: v.values.double().numpy() for m, v in batch.inputs.items()}
    y, there = batch.labels.numpy(), {m: np.ones(400, dtype=bool) for m in x}
    heights = []
    for steps in (0, 1, 3, 10):
        old, mre_plus.ITERATIONS = mre_plus.ITERATIONS, steps
        try:
            experts = fit_experts(x, y, there, CLASSES, Assumption(1.0))
        finally:
            mre_plus.ITERATIONS = old
        evidence = torch.stack([torch.tensor(_density(x[m], e)) for m, e in experts.items()], dim=1)
        transitions = torch.stack([torch.tensor(e.transition) for e in experts.values()])
        said, agrees = factors(evidence, transitions, torch.ones(400, 3, dtype=torch.bool))
        logits = said.sum(1) + some_agrees(agrees, transitions, torch.ones(400, 3, dtype=torch.bool)).log()
        heights.append(float(logits[torch.arange(400), batch.labels].mean()))
    assert heights[0] < heights[1] < heights[3]


def _density(x, expert):
    """log N(x; centre_k, covariance), all of it."""
    from scipy.stats import multivariate_normal

    return np.stack([multivariate_normal.logpdf(x, c, expert.covariance) for c in expert.centres], axis=1)


MUFFLED = {  # most of one class sound like another one, and in some utterances nothing means its label
    "text": np.array([[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]),
    "audio": np.array([[0.95, 0.0, 0.05], [0.65, 0.35, 0.0], [0.6, 0.0, 0.4]]),
    "vision": np.array([[0.8, 0.1, 0.1], [0.0, 0.9, 0.1], [0.2, 0.1, 0.7]]),
}


def muffled(num=2400, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(CLASSES, size=num)
    inputs = {}
    for i, (m, dim) in enumerate(DIMS.items()):
        own = np.array([rng.choice(CLASSES, p=MUFFLED[m][k]) for k in y])
        centres = np.random.default_rng(100 + i).normal(0, 2.5, (CLASSES, dim))
        inputs[m] = Ragged.from_rows(torch.tensor(centres[own] + rng.normal(size=(num, dim)), dtype=torch.float32))
    return Batch(inputs, torch.tensor(y), groups=torch.arange(num) // 5)


def test_it_finds_how_most_of_a_class_sound_like_another_where_sometimes_nothing_agrees():
    model = fitted(muffled())
    assert not model.get_buffer("some_agree")
    for m, truth in MUFFLED.items():
        assert np.abs(model.get_buffer(f"transition_{m}").numpy() - truth).mean() < 0.03, m


def test_that_some_modality_agrees_is_kept_where_it_is_so():
    assert fitted(planted()[0]).get_buffer("some_agree")


def test_without_that_the_posterior_is_the_plain_product():
    batch = muffled(300)
    model = fitted(batch)
    model.get_buffer("some_agree").fill_(False)
    output = model(batch)
    prior = model.get_buffer("log_prior")
    evidence = model.evidence(model.prepare(batch))
    for i in range(5):
        said, agrees = torch.zeros(CLASSES, dtype=torch.float64), []
        for m in DIMS:
            t = model.get_buffer(f"transition_{m}")
            terms = t * evidence[m][i].exp()  # (y, k)
            said += terms.sum(1).log()
            agrees.append(torch.diagonal(terms) / terms.sum(1))
        posterior = (prior + said).softmax(0)
        torch.testing.assert_close(output.logits[i].double().softmax(0), posterior, rtol=1e-4, atol=1e-6)
        relevance = torch.stack([(posterior * a).sum() for a in agrees])
        torch.testing.assert_close(output.relevance[i].double(), relevance, rtol=1e-4, atol=1e-6)


def test_mixed_with_nothing_it_is_itself_and_with_all_it_is_uniform():
    transition = np.array([[0.9, 0.1], [0.3, 0.7]])
    assert (mixed(transition, 0.0) == transition).all()
    assert (mixed(transition, 1.0) == 0.5).all()
    assert mixed(transition, 0.4).sum(1) == pytest.approx([1, 1])


def test_scores_are_refused():
    with pytest.raises(InputError, match="needs classes"):
        create_model("mre_plus", DIMS, Task(low=-1, high=1))
