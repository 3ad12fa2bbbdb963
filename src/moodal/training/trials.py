"""The trials of a search, kept by Optuna: what is proposed next, and what was measured so far, whatever stops it.

SQLite, because a transaction that a kill interrupts is rolled back; Optuna's journal file is spoiled for good by a line
that was half written and then added to. There is one study per model, in one file.
"""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moodal.training.loop import random_seed
from moodal.training.spaces import Range, Space
from moodal.types import InputError, WorkError

GENERATION = 5  # trials that are proposed together, knowing the results of all generations before


@dataclass(frozen=True)
class Measured:
    """One training run of a trial: ``value`` is larger for better; None where training failed, ``error`` says why."""

    value: float | None
    seconds: float
    error: str = ""


@dataclass
class Trial:
    """One choice of settings. ``runs``: what was measured, by position among the model's (seed, fold) pairs."""

    number: int
    settings: dict[str, Any]
    runs: dict[int, Measured] = field(default_factory=dict)

    @property
    def values(self) -> list[float | None]:
        return [self.runs[i].value for i in sorted(self.runs)]

    @property
    def valid(self) -> float | None:
        """Mean over the runs; None if one of them failed: settings that fail sometimes are not chosen."""
        good = [v for v in self.values if v is not None]
        return statistics.fmean(good) if good and len(good) == len(self.runs) else None

    @property
    def std(self) -> float | None:
        good = [v for v in self.values if v is not None]
        return statistics.stdev(good) if self.valid is not None and len(good) > 1 else None

    @property
    def seconds(self) -> float:
        return sum(run.seconds for run in self.runs.values())

    @property
    def error(self) -> str:
        return next((run.error for _, run in sorted(self.runs.items()) if run.error), "")


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The one with the largest mean; of equals the first, so that the given settings give way only to better ones."""
    return max((t for t in trials if t.valid is not None), key=lambda t: (t.valid, -t.number), default=None)


def propose(name: str, number: int, space: Space, before: Sequence[Trial]) -> dict[str, Any]:
    """Settings for the next trial, by Optuna's TPE.

    They depend on the model's name, the number, and the results of earlier generations; not on what happens to be
    finished at this moment. So neither the number of processes nor an interruption changes them.
    """
    optuna = import_optuna()
    known = [t for t in before if t.number < number // GENERATION * GENERATION]
    sampler = optuna.samplers.TPESampler(seed=random_seed("tune", name, number) % 2**32)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in known:
        study.add_trial(_as_optuna(trial, space, optuna.trial.TrialState.COMPLETE))
    found: dict[str, Any] = study.ask({k: _distribution(d) for k, d in space.items()}).params
    return found


class Store:
    """The file of a search. One process writes it at a time, the one that asks and is told."""

    def __init__(self, file: Path) -> None:
        self._optuna = import_optuna()
        # connected to here, because a path is no URL: ? and {} would be read as parts of one
        connect = {"creator": lambda: sqlite3.connect(file, check_same_thread=False)}
        self._storage = self._optuna.storages.RDBStorage("sqlite:///trials.db", engine_kwargs=connect)

    @classmethod
    @contextmanager
    def open(cls, file: Path) -> Iterator[Store]:
        """Closed when the block ends; a file that cannot be read or written is one sentence."""
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import DatabaseError

        try:
            with closing(cls(file)) as store:
                yield store
        except (DatabaseError, StorageInternalError) as e:
            cause = e.__cause__ if isinstance(e, StorageInternalError) else e
            why = getattr(cause, "orig", cause)
            raise WorkError(f"{file} could not be read or written ({why}); what was recorded before stays") from e

    def close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def names(self) -> list[str]:
        return list(self._optuna.get_all_study_names(self._storage))

    def facts(self, name: str) -> dict[str, Any]:
        """What was noted about a model; empty where it has no study yet."""
        return dict(self._study(name).user_attrs) if name in self.names() else {}

    def note(self, name: str, facts: Mapping[str, Any]) -> None:
        study = self._study(name)
        for key, value in facts.items():
            study.set_user_attr(key, value)

    def trials(self, name: str) -> list[Trial]:
        """In the order of their numbers; one that was under way has the runs that it has."""
        if name not in self.names():
            return []
        return [_from_optuna(t) for t in self._study(name).get_trials(deepcopy=False)]

    def begin(self, name: str, trial: Trial, space: Space) -> None:
        """Write down a trial before it is trained: all of it or nothing, in one transaction."""
        running = _as_optuna(trial, space, self._optuna.trial.TrialState.RUNNING)
        self._study(name).add_trial(running)

    def record(self, name: str, trial: Trial, run: int) -> None:
        study = self._storage.get_study_id_from_name(name)
        where = self._storage.get_trial_id_from_study_id_trial_number(study, trial.number)
        self._storage.set_trial_user_attr(where, f"run {run}", asdict(trial.runs[run]))

    def finish(self, name: str, trial: Trial) -> None:
        """Optuna's own mark; a trial that failed has the worst value there is, so that the sampler learns from it."""
        self._study(name).tell(trial.number, _worth(trial), skip_if_finished=True)

    def _study(self, name: str) -> Any:
        return self._optuna.create_study(
            storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
        )


def import_optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as e:
        raise InputError("searching needs Optuna; install it with: pip install 'moodal[tune]'") from e
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _worth(trial: Trial) -> float:
    return float("-inf") if trial.valid is None else trial.valid


def _as_optuna(trial: Trial, space: Space, state: Any) -> Any:
    optuna = import_optuna()
    # given settings may lie outside of what is searched; then the sampler cannot know of them
    inside = {k: d for k, d in space.items() if trial.settings[k] in d}
    return optuna.trial.create_trial(
        state=state,
        value=_worth(trial) if state.is_finished() else None,
        params={k: trial.settings[k] for k in inside},
        distributions={k: _distribution(d) for k, d in inside.items()},
        user_attrs={"settings": trial.settings},
    )


def _from_optuna(found: Any) -> Trial:
    runs = {int(k.removeprefix("run ")): Measured(**v) for k, v in found.user_attrs.items() if k.startswith("run ")}
    return Trial(found.number, found.user_attrs["settings"], runs)


def _distribution(dimension: Any) -> Any:
    kinds = import_optuna().distributions
    if not isinstance(dimension, Range):
        return kinds.CategoricalDistribution(dimension.choices)
    kind = kinds.IntDistribution if isinstance(dimension.low, int) else kinds.FloatDistribution
    return kind(dimension.low, dimension.high, log=dimension.log)
