"""A run as a folder that others can load: weights, config, and a model card that says what it is for and what not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from moodal.files import new_folder, read_json
from moodal.serving.saved import FILES, Saved, read_saved
from moodal.types import InputError

INTENDED_USE = """\
## Intended use

Research on how people show emotion; labelling video with a person who checks; tools whose users know of it and want it.
It says what a face, a voice and words *look and sound like*, as annotators would name it. It does not know what
anybody feels.

## Not for

- judging people at work or in education: in the European Union that is forbidden (Regulation (EU) 2024/1689, article
  5(1)(f)), but for medical or safety reasons;
- decisions about hiring, credit, insurance, police, borders or health;
- watching people who have not been told. Where emotion recognition is allowed in the EU, those exposed must be
  informed (article 50(3)), and it counts as high-risk (annex III, 1(c)).

## Limits

Trained on what the data set holds: its languages, cultures, ages, ways of acting. Acted emotion is not felt emotion.
A probability is calibrated on the data set's valid split, and on nothing else. An abstention is an answer.
"""


def save_pretrained(source: str | Path, folder: Path) -> Path:
    """One run as ``folder``: what ``Predictor.from_pretrained`` and the model hub take."""
    saved = read_saved(source)
    if len(saved) > 1:
        raise InputError(f"{source} holds {len(saved)} runs; name one, say {saved[0].folder}")
    with new_folder(folder) as partial:
        for name in FILES:
            shutil.copyfile(saved[0].folder / name, partial / name)
        (partial / "README.md").write_text(model_card(saved[0]), encoding="utf-8")
    return folder


def push_to_hub(source: str | Path, name: str) -> str:
    """Upload one run to the model hub as ``name`` (owner/model); returns its address. Needs a login there."""
    import tempfile

    try:
        from huggingface_hub import HfApi
    except ImportError as e:
        raise InputError("the model hub needs the text extra; run: pip install 'moodal[text]'") from e
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_pretrained(source, Path(scratch) / "model")
        api = HfApi()
        api.create_repo(name, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))


def model_card(saved: Saved) -> str:
    """README.md of a saved model: numbers from its own report, features and their licences, use and law."""
    report = _report(saved.folder)
    front = "---\nlibrary_name: moodal\ntags: [emotion-recognition, multimodal]\n---\n"
    untrained = "" if saved.kind != "prior" else "**Nobody trained it**: it combines published knowledge.\n\n"
    about = (
        untrained
        + f"# {saved.kind}, trained on {saved.dataset}\n\nPredict with `moodal predict VIDEO --model FOLDER`.\n"
    )
    return "\n".join([front, about, _features(saved), _scores(report, saved), INTENDED_USE])


def _report(folder: Path) -> dict[str, Any]:
    file = folder / "report.json"
    found: dict[str, Any] = read_json(file) if file.exists() else {}
    return found


def _features(saved: Saved) -> str:
    rows = ["| modality | made by | version | licence |", "|---|---|---|---|"]
    for m in saved.model.modalities:
        spec = saved.features.get(m, {})
        rows.append(f"| {m} | {spec.get('name', '?')} | {spec.get('version', '?')} | {spec.get('licence', '?')} |")
    task = saved.model.task
    says = f"Classes: {', '.join(task.classes)}." if task.classes else f"A score from {task.low:g} to {task.high:g}."
    return "\n".join(["## What it reads", "", *rows, "", says, ""])


def _scores(report: dict[str, Any], saved: Saved) -> str:
    if not report:
        return "## Scores\n\nNot known: its report does not lie beside it.\n"
    tested, counts = report["scores"]["test"], report["utterances"]
    rows = [f"| {name} | {value:.4f} |" for name, value in tested.items()]
    about = f"Of one run, on {counts['test']} test utterances, after training on {counts['train']}."
    heat = f" Its logits are divided by {saved.temperature:.3f}, fitted on valid." if saved.temperature else ""
    return "\n".join(["## Scores", "", about + heat, "", "| metric | test |", "|---|---|", *rows, ""])
