"""What a search leaves for people: tuned.toml for ``moodal compare --settings``, trials.csv, and a picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moodal.files import write_atomic
from moodal.metrics import HIGHER_IS_BETTER
from moodal.training.trials import Trial, best_trial

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")  # more than seven models: the colours begin again with another line


@dataclass(frozen=True)
class ModelTrials:
    """All trials of one model; ``given``: settings that were said, not searched; ``command``: what was typed last."""

    name: str
    trials: list[Trial]
    given: Mapping[str, Any]
    command: str


@dataclass(frozen=True)
class Tuned:
    """A finished search. ``facts``: tuning.json. A valid score is larger for better: minus the log-loss, or error."""

    facts: Mapping[str, Any]
    models: list[ModelTrials]

    @property
    def score_name(self) -> str:
        criterion = str(self.facts["criterion"])
        return criterion if HIGHER_IS_BETTER[criterion] else f"minus {criterion}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.facts["name"],
            "fingerprint": self.facts["fingerprint"],
            "criterion": self.facts["criterion"],
            "seeds": self.facts["seeds"],
            "trials": [_row(m.name, t) for m in self.models for t in m.trials],
            "best": [_best_row(m, t) for m, t in self.best()],
        }

    def best(self) -> Iterator[tuple[ModelTrials, Trial]]:
        for model in self.models:
            if (trial := best_trial(model.trials)) is not None:
                yield model, trial

    def lines(self) -> list[str]:
        """One sentence per model."""
        return [_sentence(m, t) for m, t in self.best()]


def write_tuned(tuned: Tuned, out: Path) -> None:
    """tuned.toml, trials.csv and trials.png in ``out``; the same trials give the same TOML."""
    _draw(tuned, out / "trials.png")
    _write_csv(tuned, out / "trials.csv")
    write_atomic(out / "tuned.toml", lambda p: p.write_text(settings_toml(tuned), encoding="utf-8"))


def settings_toml(tuned: Tuned) -> str:
    """A table per model that ``config.read_settings`` reads, below comments that say where it comes from."""
    facts = tuned.facts
    said = dict.fromkeys(_one_line(m.command) for m in tuned.models if m.command)
    seeds = ", ".join(map(str, facts["seeds"]))
    folds = f"the valid folds ({facts['folds_trained']} of {facts['folds']})"
    part = folds if facts["folds"] else "the valid split"
    head = [
        f"Chosen on {part} of {_one_line(facts['name'])}; test was never predicted.",
        *said,
        f"data set: fingerprint {facts['fingerprint']}",
        f"score: {tuned.score_name}, larger is better; mean and standard deviation over runs; seeds {seeds}",
        *tuned.lines(),
    ]
    blocks = ["\n".join(f"# {line}" for line in head)]
    for model, trial in tuned.best():
        lines = [f"{k} = {_toml(v)}" for k, v in {**model.given, **trial.settings}.items()]
        blocks.append("\n".join([f"[{model.name}]", *lines]))
    return "\n\n".join(blocks) + "\n"


def _sentence(model: ModelTrials, trial: Trial) -> str:
    first = model.trials[0]
    count = f"{len(model.trials)} trials" if len(model.trials) > 1 else "1 trial, nothing to search"
    which = "the given settings" if trial.number == 0 else f"trial {trial.number}; given settings {_score(first)}"
    return f"{model.name}: valid {_score(trial)} ({which}; {count})"


def _score(trial: Trial) -> str:
    if trial.valid is None:
        return "failed"
    return f"{trial.valid:.4f}" + (f" ± {trial.std:.4f}" if trial.std is not None else "")


def _row(name: str, trial: Trial) -> dict[str, Any]:
    return {
        "model": name,
        "number": trial.number,
        "valid": trial.valid,
        "std": trial.std,
        "values": trial.values,
        "seconds": trial.seconds,
        "settings": trial.settings,
        "error": trial.error,
    }


def _best_row(model: ModelTrials, trial: Trial) -> dict[str, Any]:
    return {
        "model": model.name,
        "number": trial.number,
        "valid": trial.valid,
        "std": trial.std,
        "default": model.trials[0].valid,
        "trials": len(model.trials),
        "settings": {**model.given, **trial.settings},
    }


def _write_csv(tuned: Tuned, file: Path) -> None:
    """A row per trial; a column per searched setting, empty where the model has none of the name."""
    searched = list(dict.fromkeys(k for m in tuned.models for t in m.trials for k in t.settings))
    fixed = ["model", "number", "valid", "std", "values", "seconds", "error"]

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as f:
            out = csv.DictWriter(f, [*fixed, *searched], lineterminator="\n")
            out.writeheader()
            for model in tuned.models:
                for trial in model.trials:
                    row = _row(model.name, trial)
                    values = " ".join("failed" if v is None else repr(v) for v in trial.values)
                    out.writerow({**{k: row[k] for k in fixed}, "values": values, **trial.settings})

    write_atomic(file, write)


def _toml(value: Any) -> str:
    """Exactly: a float is read back to the same bits."""
    if isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _draw(tuned: Tuned, file: Path) -> None:
    """The best score so far over the trials, a line per model; every trial is a faint dot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown: list[float] = []
    for i, model in enumerate(tuned.models):
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]
        good = [(t.number, t.valid) for t in model.trials if t.valid is not None]
        axes.plot(*_columns(good), linestyle="", marker=".", color=colour, alpha=0.3)
        best = [(n, max(v for m, v in good if m <= n)) for n, _ in good]
        axes.step(
            *_columns(best), style, where="post", marker="" if len(best) > 1 else "o", color=colour, label=model.name
        )
        shown += [v for _, v in best]
    if shown:
        room = 0.1 * (max(shown) - min(shown)) or 0.1
        axes.set_ylim(min(shown) - 2 * room, max(shown) + room)  # hopeless trials would flatten the rest
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial (0: given settings)", ylabel=f"{tuned.score_name} on valid", title="best so far")
    axes.spines[["top", "right"]].set_visible(False)
    write_atomic(file, lambda p: figure.savefig(p, format="png", dpi=150))


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [n for n, _ in points], [v for _, v in points]
