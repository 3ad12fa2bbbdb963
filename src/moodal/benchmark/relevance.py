"""Does relevance deserve its name? What a model says of how much a modality counts, against what can be known of it.

Six questions, each asked of the test utterances of every seed and fold, with saved models and saved predictions:
``rows`` whether relevance is higher where a modality's own label agrees with the utterance's, and lower where a model
of this modality alone is wrong; ``response`` and ``monotone`` whether it falls when the modality is given to another
class, made noisy or silenced; ``deletion`` whether what it calls irrelevant can be spared; ``exchange`` what is lost
when the relevances of two modalities change places, in the mean of what the model says of each modality alone (no model
of the zoo takes relevance from outside, so the whole model cannot be asked); ``agreement`` how right a model is where
modalities agree and where they do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moodal.batch import Batch, Ragged
from moodal.benchmark.relevance_estimates import (
    CLEAN,
    Answers,
    Facts,
    agreements_of,
    deletions_of,
    exchanges_of,
    monotone_of,
    responses_of,
    rows_of,
)
from moodal.benchmark.relevance_probes import (
    STRENGTHS,
    ask,
    perturbed,
    spread_of,
)
from moodal.benchmark.relevance_report import (
    EXACT,
    RelevanceReport,
    verdict_of,
)
from moodal.benchmark.relevance_statistics import (
    Array,
    Resamples,
)
from moodal.benchmark.results import ModelResult, Results, read_results
from moodal.data.simulate import read_truth
from moodal.data.store import Dataset, read_dataset
from moodal.experiment import load_model
from moodal.files import read_json
from moodal.models import FusionModel, create_model
from moodal.training.loop import predict
from moodal.training.processes import training_numerics
from moodal.training.runs import split_rows
from moodal.types import InputError, unknown

SAME = 1e-3  # a saved model may differ from its saved predictions by so much: sums in another order


def measure_relevance(runs: Path, models: Sequence[str] | None = None, dataset: Path | None = None) -> RelevanceReport:
    """Ask the finished models below ``runs`` (those of ``models``, or all) that output relevance.

    dataset: where the data set is, if not where the runs folder says; another one, or a changed one, is refused.
    """
    results = read_results(runs)
    asked, chosen = _with_relevance(results, models)
    data = _same_dataset(results, dataset)
    with training_numerics(1):
        return _measure(results, asked, chosen, data)


def _measure(
    results: Results, asked: Sequence[ModelResult], chosen: Sequence[ModelResult], data: Dataset
) -> RelevanceReport:
    """asked: whose accuracy is told apart; chosen: those of them whose relevance is measured."""
    raw, spreads, facts = _read(results, data)
    said = _ask_all(results, chosen, data, raw, spreads, facts)
    draws = Resamples(results.groups)
    agreement, by = agreements_of(asked, facts, results, draws)
    report = RelevanceReport(
        dataset=results.dataset,
        titles={m.name: m.title for m in asked} | {EXACT: EXACT},
        rows=tuple(row for m in chosen for row in rows_of(m, facts, draws)),
        response=tuple(row for m in chosen for row in responses_of(m, said[m.name], facts, draws)),
        monotone=tuple(row for m in chosen for row in monotone_of(m, said[m.name], facts, draws)),
        deletion=tuple(row for m in chosen for row in deletions_of(m, said[m.name], facts, results, draws)),
        exchange=tuple(row for m in chosen for row in exchanges_of(m, said[m.name], facts, results, draws)),
        agreement=agreement,
        verdict=(),
        protocol=_protocol(results, facts, draws, by),
        notes=(*_without(asked, chosen), *_differing(chosen, said), *results.notes),
    )
    return replace(report, verdict=verdict_of(report))


def _with_relevance(results: Results, names: Sequence[str] | None) -> tuple[list[ModelResult], list[ModelResult]]:
    """The models that were asked for, and those of them that have relevance over two or more modalities."""
    found = {m.name: m for m in results.models}
    for name in names or ():
        if name not in found:
            raise unknown(f"finished model in {results.root}", name, found)
    asked = [found[name] for name in (found if names is None else dict.fromkeys(names))]
    chosen = [m for m in asked if m.relevance is not None and len(m.modalities) > 1]
    if not chosen:
        said = ", ".join(m.name for m in asked)
        raise InputError(
            f"none of {said} in {results.root} says how relevant each of several modalities is; "
            "train one that does, such as mre"
        )
    return asked, chosen


def _without(asked: Sequence[ModelResult], chosen: Sequence[ModelResult]) -> list[str]:
    none = [m.title for m in asked if m not in chosen]
    return [f"No relevance to measure: {', '.join(none)}."] if none else []


def _same_dataset(results: Results, dataset: Path | None) -> Dataset:
    path = Path(results.path) if dataset is None else dataset
    if not path.exists():
        raise InputError(f"{path}, the data set of the runs, does not exist here; say where it is with --dataset")
    data = read_dataset(path, task=results.task.kind)
    if data.fingerprint != read_json(results.root / "benchmark.json")["fingerprint"]:
        raise InputError(f"{path} is not the data set that {results.root} was trained on, or it has changed since")
    return data


# What is known.


def _read(results: Results, data: Dataset) -> tuple[Batch, dict[str, dict[int | None, Tensor]], Facts]:
    """Raw features of the test utterances, each fold's spread of them by modality, and what is known without models.

    Modalities are read one after the other, so that of fixed splits only the test part is held.
    """
    where = {u.id: i for i, u in enumerate(data.utterances)}
    rows = torch.tensor([where[name] for name in results.ids])
    train = {fold: split_rows(data, fold)["train"] for fold in _folds(results)}
    inputs: dict[str, Ragged] = {}
    spreads: dict[str, dict[int | None, Tensor]] = {}
    loss, alone, judge = {}, {}, {}
    for m in data.modalities:
        whole = data.read([m])
        x = whole.inputs[m]
        spreads[m] = {fold: spread_of(x.select(index)) for fold, index in train.items()}
        kept = x.select(rows)
        inputs[m] = Ragged(kept.values, kept.lengths)
        found = _independent(m, results, data, whole)
        if found is not None:
            judge[m], outputs = found
            there = (inputs[m].lengths > 0).numpy()
            loss[m] = np.where(there, _loss(outputs, results), np.nan)
            alone[m] = _softmax(outputs).mean(0).argmax(-1)
    raw = Batch(inputs, ids=list(results.ids))
    return raw, spreads, _facts(results, data, rows, raw, loss, alone, judge)


def _facts(
    results: Results,
    data: Dataset,
    rows: Tensor,
    raw: Batch,
    loss: Mapping[str, Array],
    alone: Mapping[str, npt.NDArray[np.int64]],
    judge: Mapping[str, str],
) -> Facts:
    code = {name: i for i, name in enumerate(results.task.classes)}
    labels = [data.utterances[i].modality_labels for i in rows.tolist()]
    own = {m: np.array([code.get(x.get(m, ""), -1) for x in labels]) for m in data.modalities}
    own = {m: k for m, k in own.items() if (k >= 0).any()}
    present = {m: p.numpy() for m, p in raw.present.items()}
    agrees = {m: np.where((k >= 0) & present[m], (k == results.y).astype(np.float64), np.nan) for m, k in own.items()}
    known = bool(results.task.classes) and (data.path / "truth.parquet").is_file()
    truth = read_truth(data.path, results.ids) if known else None
    return Facts(present, agrees, own, loss, alone, judge, truth)


def _folds(results: Results) -> list[int | None]:
    return list(range(results.folds)) or [None]


def _independent(modality: str, results: Results, data: Dataset, whole: Batch) -> tuple[str, Array] | None:
    """A model of this modality alone that is none of those judged: its name and (R, N, C) outputs on test.

    The runs of ``text_only`` and so on if they are there; else discriminant analysis, fitted here on train.
    """
    name = f"{modality}_only"
    found = [m for m in results.models if m.model == name]
    if found:
        return found[0].title, found[0].outputs
    if not results.task.classes:
        return None
    where = {name: i for i, name in enumerate(results.ids)}
    outputs = np.empty((1, len(results.ids), len(results.task.classes)))
    model = create_model("lda", {modality: data.dims[modality]}, results.task)
    reduced = model.pool(whole)
    for fold in _folds(results):
        rows = split_rows(data, fold)
        train = reduced.select(rows["train"])
        model.fit_standardisation(train)
        model.fit(train, 0)
        tested = [where[data.utterances[i].id] for i in rows["test"].tolist()]
        outputs[0, tested] = predict(model, reduced.select(rows["test"])).logits.double().numpy()
    return f"LDA on {modality}", outputs


def _loss(outputs: Array, results: Results) -> Array:
    """(N,) mean over runs of the log-loss, or of the absolute error of scores."""
    if not results.task.classes:
        return np.asarray(np.abs(outputs[..., 0] - results.y).mean(0))
    log_p = np.log(np.clip(_softmax(outputs), 1e-300, None))
    return np.asarray(-log_p[:, np.arange(len(results.y)), results.y].mean(0))


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


# What the models say.


def _ask_all(
    results: Results,
    chosen: Sequence[ModelResult],
    data: Dataset,
    raw: Batch,
    spreads: Mapping[str, Mapping[int | None, Tensor]],
    facts: Facts,
) -> dict[str, Answers]:
    """Every model's every seed, fold by fold, on the clips as they are and under every condition."""
    fold_of = {u.id: u.fold for u in data.utterances}
    classes, num = torch.from_numpy(_classes(results)), len(results.ids)
    answers = {m.name: Answers({}, {}, {}, {}) for m in chosen}
    for fold in _folds(results):
        rows = [i for i, name in enumerate(results.ids) if fold is None or fold_of[name] == fold]
        index = torch.tensor(rows)
        batch = raw.select(index)
        own = {m: torch.from_numpy(k)[index] for m, k in facts.own.items()}
        spread = {m: spreads[m][fold] for m in raw.inputs}
        models = [(m, i, _load(results, m, seed, fold)) for m in chosen for i, seed in enumerate(m.seeds)]
        as_they_are = (CLEAN, batch, torch.ones(len(rows), dtype=torch.bool))
        for condition, changed, concerned in chain([as_they_are], perturbed(batch, spread, classes[index], own)):
            said = ask([model for _, _, model in models], changed)
            for (m, i, _), one in zip(models, said, strict=True):
                answers[m.name].keep(condition, (len(m.seeds), num), i, rows, one, concerned.numpy())
    return answers


def _load(results: Results, m: ModelResult, seed: int, fold: int | None) -> FusionModel:
    path = results.root / m.name / f"seed-{seed}"
    return load_model(path if fold is None else path / f"fold-{fold}")


def _classes(results: Results) -> npt.NDArray[np.int64]:
    """(N,) classes; of scores: below, at and above the middle."""
    if results.task.classes:
        return np.asarray(results.y, np.int64)
    return np.sign(results.y - (results.task.low + results.task.high) / 2).astype(np.int64)


def _differing(chosen: Sequence[ModelResult], answers: Mapping[str, Answers]) -> list[str]:
    """A note for each model that, asked again, does not say what it had said when it was trained."""
    notes = []
    for m in chosen:
        assert m.relevance is not None
        gap = float(np.abs(answers[m.name].relevance[CLEAN] - m.relevance).max())
        if not gap <= SAME:
            notes.append(
                f"{m.title}: asked again, its saved models give relevances that differ by up to {gap:.2g} from those "
                "saved with them, so its code has changed since; train it again."
            )
    return notes


# In words.


def _protocol(results: Results, facts: Facts, draws: Resamples, by: str) -> tuple[str, ...]:
    n, labels = len(results.ids), bool(facts.own)
    judges = ", ".join(dict.fromkeys(facts.judge.values()))
    what = "log-loss" if results.task.classes else "absolute error"
    split = "their own labels" if by == "labels" else "what models of one modality each predict"
    strengths = ", ".join(f"{s:g}" for s in STRENGTHS)
    said = (
        f"{results.dataset}: {n} test utterances in {draws.num_groups} groups"
        + (
            ", all of one group, so single utterances are resampled and intervals may be too short."
            if draws.alone
            else (f", {results.folds} folds pooled." if results.folds else ", fixed splits.")
        ),
        "An utterance without a modality does not count for it.",
        "AUROC: how often relevance is higher where the modality's own label is the utterance's than "
        "where it is not; 0.5 is chance."
        if labels
        else "No modality has labels of its own, so there is no AUROC.",
        f"Spearman: rank correlation of relevance with the {what} of an independent model of the modality alone "
        f"({judges}); it should be below 0."
        if judges
        else "",
        "Another class: the modality's features are those of another test utterance, of another class"
        + (", given where the modality's own label was right and the donor's is not." if labels else "."),
        f"Noise: Gaussian, {strengths} standard deviations of the training split's features, half of its variance "
        "shared by all steps of an utterance; the same draw at every strength. Silence: the modality is missing.",
        "Removal: one modality per utterance is missing; random is the mean over all, lowest on average is the one of "
        "lowest mean relevance, in every utterance the same, and so costs what needs no look at the utterance.",
        f"Modalities agree or conflict by {split}." if by else "",
        f"[low, high]: 95 % intervals, percentiles of {draws.resamples} bootstrap resamples of seeds and of whole "
        "groups at the same time, the same for every number; differences are of the same utterances.",
        "A test is passed where intervals exclude chance in every modality: AUROC above 0.5, Spearman below 0, falling "
        "with rising noise and, in more than half of the utterances, for features of another class; that of removal, "
        "where the lowest costs less than a random one.",
        "Exchange: the model's own answers to each modality alone, averaged with its relevance as weights; then with "
        "the highest and the lowest weight of each utterance exchanged, and with equal weights. No model takes it "
        "from outside, so its own fusion cannot be asked this.",
    )
    return tuple(s for s in said if s)
