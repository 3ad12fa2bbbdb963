"""Search for settings on valid: every model gets as many trials and seeds, and no trial looks at test.

Trial 0 has the given settings, so what is found is never worse on valid than these. A trial is a training run for each
seed, and for each fold where there are folds; its value is their mean. Nothing is stopped early, for any model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from moodal import __version__, metrics
from moodal.config import TRAINING_KEYS, Settings
from moodal.data.store import Dataset, read_dataset
from moodal.experiment import Experiment
from moodal.files import only_one, read_json, write_json
from moodal.models import chosen_models, create_model
from moodal.training.loop import fit_network, predict, random_seed
from moodal.training.plan import check_dataset, check_experiments, dataset_facts, plan_experiments
from moodal.training.processes import POLL_S, Submit, training_numerics, worker_pool
from moodal.training.progress import progress_bar
from moodal.training.runs import cached_dataset, load, split_rows
from moodal.training.spaces import Space, read_spaces, space_of
from moodal.training.trials import GENERATION, Measured, Store, Trial, best_trial, import_optuna, propose
from moodal.training.tuned import ModelTrials, Tuned, write_tuned
from moodal.types import InputError, WorkError

FIRST_SEED = 1000  # reports count from 0: no run of a report was seen while settings were chosen


@dataclass
class Search:
    """One model's search. ``experiments``: the given settings, once per seed and fold."""

    name: str
    experiments: list[Experiment]
    space: Space
    num_trials: int
    given: dict[str, Any]
    trials: list[Trial]

    @property
    def num_runs(self) -> int:
        return len(self.experiments)

    def is_done(self, trial: Trial) -> bool:
        return len(trial.runs) == self.num_runs

    @property
    def facts(self) -> dict[str, Any]:
        """What makes trials comparable: a search goes on only with the same."""
        first = self.experiments[0]
        return {
            "moodal": __version__,
            "options": dict(first.options),
            "training": asdict(first.training),
            "space": {k: asdict(d) for k, d in self.space.items()},
        }

    def next_trials(self) -> Iterator[Trial]:
        """The rest of a generation, once all generations before it have been measured; otherwise none."""
        begun = len(self.trials)
        if all(self.is_done(t) for t in self.trials[: begun // GENERATION * GENERATION]):
            for number in range(begun, min(self.num_trials, (begun // GENERATION + 1) * GENERATION)):
                yield Trial(number, self._settings(number))

    def _settings(self, number: int) -> dict[str, Any]:
        if number:
            return propose(self.name, number, self.space, self.trials)
        first = self.experiments[0]
        start = {**asdict(first.training), **first.options}
        return {k: start[k] for k in self.space}

    def experiment(self, trial: Trial, run: int) -> Experiment:
        base = self.experiments[run]
        training = {k: v for k, v in trial.settings.items() if k in TRAINING_KEYS}
        options = {k: v for k, v in trial.settings.items() if k not in TRAINING_KEYS}
        return replace(base, options={**base.options, **options}, training=replace(base.training, **training))


Job = tuple[Search, Trial, int]  # one run of one trial


def tune_models(
    folder: Path,
    names: Sequence[str] | None,
    trials: int,
    seeds: int,
    settings: Settings,
    out: Path,
    *,
    folds: int | None = None,
    space_file: Path | None = None,
    workers: int | None = None,
    task: str | None = None,
    command: str = "",
) -> Tuned:
    """Search settings for every model of ``names``; the trials and what was found are left in ``out``.

    What was finished before is not done again. ``folds``: a trial is trained on the first so many folds, on all unless
    given. ``command`` is noted beside the settings that it found.
    """
    import_optuna()
    data = read_dataset(folder, task=task)
    searches = plan_searches(data, names, trials, seeds, settings, read_spaces(space_file), folds)
    facts = _search_facts(data, seeds, folds, _criterion(searches))
    _check_folder(out, facts)
    out.mkdir(parents=True, exist_ok=True)
    with only_one(out):  # two commands would each take the other's trials for abandoned ones
        if not (out / "tuning.json").exists():
            write_json(out / "tuning.json", facts)
        with Store.open(out / "trials.db") as store:
            _take_up(searches, store, trials, out)
            _work(searches, store, folder, workers or os.cpu_count() or 1, command)
            every = [_model_trials(name, store) for name in store.names() if store.trials(name)]
    tuned = Tuned(facts, every)
    write_tuned(tuned, out)
    for model in every:
        if best_trial(model.trials) is None:
            raise WorkError(f"no trial of {model.name} ended well; the first one: {model.trials[0].error}")
    return tuned


def plan_searches(
    data: Dataset,
    names: Sequence[str] | None,
    trials: int,
    seeds: int,
    settings: Settings,
    spaces: Mapping[str, Mapping[str, Any]],
    folds: int | None = None,
) -> list[Search]:
    """One search per model, checked as far as it can be before anything is trained."""
    if trials < 1:
        raise InputError(f"--trials must be at least 1, got {trials}")
    if folds is not None and not 1 <= folds <= data.num_folds:
        there = f"{data.num_folds} folds" if data.num_folds else "fixed splits, no folds"
        raise InputError(f"--folds {folds} cannot be: {data.path} has {there}")
    chosen = chosen_models(names, data.dims, data.task)
    for name in chosen:
        if "@" in name:
            raise InputError(f"a variant like {name} is not searched: tune the model, and give the rest with --set")
    planned = [replace(e, seed=FIRST_SEED + e.seed) for e in plan_experiments(data, chosen, seeds, settings)]
    planned = [e for e in planned if e.fold is None or folds is None or e.fold < folds]
    check_experiments(data, planned)
    searches = []
    for name in chosen:
        mine = [e for e in planned if e.name == name]
        space, known = space_of(name, spaces), {**asdict(mine[0].training), **mine[0].options}
        given = {k: known[k] for k in {**settings.common, **settings.per_model.get(name, {})} if k in known}
        searches.append(Search(name, mine, space, trials if space else 1, given, []))
    return searches


def measure(dataset: Path, experiment: Experiment) -> Measured:
    """Train on train, score on valid. Settings that the model refuses, or that diverge, are an answer too."""
    data = cached_dataset(dataset, experiment.task)
    if data.fingerprint != experiment.fingerprint:
        raise InputError(f"{dataset} has changed since the search began; start it again")
    began = time.perf_counter()
    value, error = None, ""
    try:
        with training_numerics(experiment.training.threads):
            value = valid_score(data, experiment)
    except (WorkError, _Refused) as e:
        error = str(e)
    return Measured(value, time.perf_counter() - began, error)


class _Refused(Exception):  # noqa: N818 (no error of ours: the trial's answer)
    """The model cannot be made with the settings of this trial."""


def valid_score(data: Dataset, experiment: Experiment) -> float:
    """The criterion on valid, larger for better. Rows of test are cut off before anything is fitted."""
    torch.manual_seed(random_seed(experiment.seed, "weights"))
    try:
        model = create_model(experiment.model, data.dims, data.task, data.columns, **experiment.options)
    except InputError as e:
        raise _Refused(str(e)) from e
    rows, batch = split_rows(data, experiment.fold), load(data, model)
    train, valid = batch.select(rows["train"]), batch.select(rows["valid"])
    model.fit_standardisation(train)
    if model.closed_form:
        model.fit(train, experiment.seed)
    else:
        fit_network(model, model.prepare(train), valid, experiment.training, experiment.seed, where=experiment.name)
    logits = predict(model, valid).logits
    if not logits.isfinite().all():
        raise WorkError(f"{experiment.name}: a prediction on valid is not finite")
    assert valid.labels is not None
    name = criterion_of(experiment)
    score = metrics.scores(logits.numpy(), valid.labels.numpy(), data.task)[name]
    return score if metrics.HIGHER_IS_BETTER[name] else -score


def criterion_of(experiment: Experiment) -> str:
    """The metric that early stopping looks at too."""
    return experiment.training.select if experiment.task == "classification" else "mae"


def _criterion(searches: Sequence[Search]) -> str:
    found = {criterion_of(s.experiments[0]): s.name for s in searches}
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise InputError(f"{first} is chosen by {one} and {second} by {other}; all models need the same select")
    return next(iter(found))


def _search_facts(data: Dataset, seeds: int, folds: int | None, criterion: str) -> dict[str, Any]:
    return {
        **dataset_facts(data),
        "seeds": list(range(FIRST_SEED, FIRST_SEED + seeds)),
        "folds_trained": folds or data.num_folds,
        "criterion": criterion,
    }


def _check_folder(out: Path, facts: Mapping[str, Any]) -> None:
    """A folder with trials that could not be compared with the new ones is refused."""
    if not (out / "tuning.json").exists():
        return
    found = read_json(out / "tuning.json")
    check_dataset(found, facts, f"{out} holds a search")
    if found.get("seeds") != facts["seeds"]:
        count = len(found.get("seeds", []))
        raise InputError(f"{out} was begun with --seeds {count}, and all trials need the same; choose another --out")
    if found.get("folds_trained") != facts["folds_trained"]:
        raise InputError(
            f"{out} was begun on {found.get('folds_trained')} folds, and all trials need the same; choose another --out"
        )
    if found.get("criterion") != facts["criterion"]:
        raise InputError(
            f"{out} chooses by {found.get('criterion')}, not by {facts['criterion']} (select); choose another --out"
        )


def _take_up(searches: Sequence[Search], store: Store, trials: int, out: Path) -> None:
    """Read what is there of every model; what would break the equal effort is refused before anything is written."""
    for search in searches:
        search.trials = store.trials(search.name)
        noted = store.facts(search.name)
        if search.trials:
            _check_same(search, noted, out)
        if len(search.trials) > search.num_trials:
            raise InputError(f"{out} has {len(search.trials)} trials of {search.name}; say --trials with that or more")
    num_runs, asked = searches[0].num_runs, {s.name for s in searches}
    for name in store.names():
        there = store.trials(name)
        if name in asked or not there:
            continue
        finished = sum(len(t.runs) == num_runs for t in there)
        if not finished == len(there) == (trials if store.facts(name)["space"] else 1):
            begun = f" and {len(there) - finished} unfinished" if finished < len(there) else ""
            raise InputError(
                f"{out} has {finished} finished{begun} trials of {name}, and every model gets the same number; name it "
                "in --models too, or choose another --out"
            )


def _check_same(search: Search, noted: Mapping[str, Any], out: Path) -> None:
    for part, here in search.facts.items():
        there = noted.get(part)
        if there == _plain(here):
            continue
        key, old, new = part, there, here
        if isinstance(there, dict) and isinstance(here, dict):
            key = next(k for k in [*here, *there] if there.get(k) != _plain(here.get(k)))
            old, new = there.get(key), here.get(key)
        raise InputError(
            f"{out} holds trials of {search.name} with another {'space' if part == 'space' else 'setting'} "
            f"({key} was {old} there and is {new} now); choose another --out"
        )


def _plain(x: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(x, Mapping):
        return {k: _plain(v) for k, v in x.items()}
    return list(x) if isinstance(x, tuple) else x


def _work(searches: Sequence[Search], store: Store, folder: Path, workers: int, command: str) -> None:
    """Train what is missing, ``workers`` runs at a time; every run is written down as soon as it is there."""
    for s in searches:
        if len(s.trials) < s.num_trials or not all(map(s.is_done, s.trials)):
            store.note(s.name, {**s.facts, "given": s.given, "command": command})
    total = sum(s.num_trials * s.num_runs for s in searches)
    under_way: dict[Future[Measured], Job] = {}
    with progress_bar(total) as move, _executor(workers) as submit:
        while True:
            busy = {(s.name, t.number, run) for s, t, run in under_way.values()}
            for job in islice(_jobs(searches, store, busy), workers - len(under_way)):
                search, trial, run = job
                under_way[submit(measure, folder, search.experiment(trial, run))] = job
            if not under_way:
                break
            for future in wait(under_way, timeout=POLL_S, return_when=FIRST_COMPLETED).done:
                search, trial, run = under_way.pop(future)
                trial.runs[run] = future.result()
                store.record(search.name, trial, run)
                if search.is_done(trial):
                    store.finish(search.name, trial)
            if move:
                move(sum(len(t.runs) for s in searches for t in s.trials), [])
    for search in searches:
        for trial in search.trials:
            store.finish(search.name, trial)  # where a kill came between the last run and the mark


def _jobs(searches: Sequence[Search], store: Store, busy: set[tuple[str, int, int]]) -> Iterator[Job]:
    """What could be trained now, in order; new trials are written down as they are reached."""
    for search in searches:
        yield from _missing(search, search.trials, busy)
        for trial in search.next_trials():
            store.begin(search.name, trial, search.space)
            search.trials.append(trial)
            yield from _missing(search, [trial], busy)


def _missing(search: Search, trials: Sequence[Trial], busy: set[tuple[str, int, int]]) -> Iterator[Job]:
    for trial in trials:
        for run in range(search.num_runs):
            if run not in trial.runs and (search.name, trial.number, run) not in busy:
                yield search, trial, run


@contextmanager
def _executor(workers: int) -> Iterator[Submit]:
    """What runs a job: this process itself for one worker, else processes of their own that end with this one."""
    if workers == 1:
        yield _run_here
        return
    with worker_pool(workers) as submit:
        yield submit


def _run_here(fn: Any, *job: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(fn(*job))
    return future


def _model_trials(name: str, store: Store) -> ModelTrials:
    noted = store.facts(name)
    return ModelTrials(name, store.trials(name), noted.get("given", {}), noted.get("command", ""))
