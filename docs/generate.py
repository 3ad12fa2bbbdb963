"""Writes what the pages say about commands, models, settings and metrics from the code itself: ``make docs``.

commands.md is made whole; in the other pages, what stands between two marks is replaced. A test compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path

import typer

from moodal.annotation.settings import AnnotationSettings
from moodal.cli import app
from moodal.config import TrainingSettings
from moodal.labels.balance import BalanceSettings
from moodal.metrics import DESCRIPTIONS, HIGHER_IS_BETTER, SENTIMENT, measures
from moodal.models import MODELS, options_of
from moodal.screening.settings import ScreenSettings
from moodal.training.spaces import SHIPPED
from moodal.types import Task

DOCS = Path(__file__).parent
WIDTH = 100
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

OPTIONS = {
    "text_pooling": "`none` keeps every step (an LSTM reads them), `mean` or `mean_std` over real steps, "
    "`course`: means of thirds, deviation, deviation of changes",
    "audio_pooling": "the same for audio",
    "vision_pooling": "the same for vision",
    "standardise": "`scale`: each feature to mean 0, deviation 1; `whiten`: correlations within a pooled modality too; "
    "`whiten_within`: those around each class's own mean",
    "max_steps": "a modality with more steps is averaged over so many equal spans",
    "hidden": "width of the encoders and of the bag; in EF-LSTM, of its LSTMs",
    "layers": "linear layers of the networks that read pooled modalities (MRE's paper: 3); "
    "in EF-LSTM, LSTMs on top of one another",
    "text_hidden": "width of the text LSTM (in LMF its output is half as wide)",
    "audio_hidden": "width of the network, or LSTM, that reads audio",
    "vision_hidden": "width of the network, or LSTM, that reads vision",
    "text_out": "columns of the text after its network",
    "fusion_hidden": "width of the layers behind the fusion",
    "rank": "rank of the low-rank fusion",
    "dropout": "share of activations dropped while training",
    "vertex_size": "columns of the vertices of Graph-MFN's graph that stand for two or more modalities",
    "memory_size": "columns of the gated memory that MFN and Graph-MFN carry from word to word",
    "delta_hidden": "hidden width of MFN's delta-memory attention",
    "delta_dropout": "dropout of its hidden layer",
    "proposal_hidden": "hidden width of the network that proposes what to write into the memory",
    "proposal_dropout": "dropout of its hidden layer",
    "retain_hidden": "hidden width of the gate that keeps the memory",
    "retain_dropout": "dropout of its hidden layer",
    "update_hidden": "hidden width of the gate that lets the proposal in",
    "update_dropout": "dropout of its hidden layer",
    "head_hidden": "hidden width of the network that reads the classes from the fused utterance",
    "head_dropout": "dropout of its hidden layer",
    "heads": "heads of every attention",
    "crossmodal_layers": "layers of MulT's transformers from one modality to another",
    "memory_layers": "layers of the transformers that then read each modality over time",
    "text_kernel": "steps that MulT's convolution over the text sees at once",
    "audio_kernel": "the same for audio",
    "vision_kernel": "the same for vision",
    "positions": "sinusoidal positions are added to every step",
    "fusion_features": "width of the fused features (in Self-MM their distances to the centres make labels)",
    "text_features": "the same for text",
    "audio_features": "the same for audio",
    "vision_features": "the same for vision",
    "fusion_dropout": "dropout of what goes into the head of the fusion",
    "audio_dropout": "the same for audio's head",
    "vision_dropout": "the same for vision's head",
    "audio_lr_factor": "learning rate of Self-MM's audio LSTM, as a multiple of `lr`",
    "vision_lr_factor": "the same for vision",
    "text_dropout": "dropout of the text features (MulT: before the convolution; Self-MM: before the text's head)",
    "embedding_dropout": "dropout of what goes into a transformer",
    "audio_attention_dropout": "dropout of the attention weights where audio is the source",
    "vision_attention_dropout": "the same where vision is the source",
    "relu_dropout": "dropout within the feed-forward networks of a transformer",
    "residual_dropout": "dropout of what each attention and feed-forward network adds",
    "output_dropout": "dropout within the residual block before the classes",
    "input_dropout": "dropout of what goes into AV-MC's audio and vision networks",
    "mixup_alpha": "AV-MC mixes two utterances with a share from Beta(alpha, alpha); 0 mixes nothing",
    "w_text": "weight of the loss of the text's own head",
    "w_audio": "the same for audio",
    "w_vision": "the same for vision",
    "w_rs": "weight of the relevant semantic loss (eq. 5); 0 switches it off",
    "w_cnce": "weight of the contrastive semantic loss (eq. 7); 0 switches it off",
    "attention_dropout": "dropout within the attention layers of a transformer (MulT: of the text and of the memories)",
    "w_diff": "weight of MISA's difference loss (private and shared codes orthogonal); 0 switches it off",
    "w_sim": "weight of MISA's similarity loss (shared codes alike); 0 switches it off",
    "w_recon": "weight of MISA's reconstruction loss; 0 switches it off",
    "temperature": "temperature of the contrastive loss",
    "attention_projections": "learned projections for query, key and value; without, the bag itself is all three",
    "relevance": "`softmax` over modalities, or a `sigmoid` for each",
    "detach_relevance": "the relevant semantic loss does not teach the relevance",
    "rescale": "softmax: weighted rows times the number of present modalities, so that equal relevance changes nothing",
    "use": "the one modality that the prior looks at, or `all`",
}
SETTINGS = {
    "epochs": "at most",
    "patience": "epochs without a better `select` on valid before training stops",
    "batch_size": "utterances per step; a last batch of one joins the one before",
    "lr": "AdamW's learning rate",
    "weight_decay": "AdamW's weight decay",
    "clip_norm": "gradients longer than this are shortened to it",
    "label_smoothing": "share of a label given to all classes alike",
    "ema": "decay of the moving average of the weights that is validated, kept and tested; 0 for none",
    "select": "what valid decides by: `nll`, `accuracy`, `f1_macro`; for scores always the mean absolute error",
    "refit": "train again on train + valid for the number of epochs that valid chose; with folds the default is true",
    "threads": "torch's threads; part of the settings because it can change the last bits",
}


def commands() -> str:
    """The help of every command, as the command line prints it."""
    group = typer.main.get_command(app)
    size = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    above = group.context_class(group, info_name="moodal", **size)
    lines = [
        "# Commands",
        "",
        "What `moodal COMMAND --help` prints. Results go to stdout, progress and warnings to stderr; with `--json`,",
        "stdout is one JSON object. Exit codes: 0 done, 1 the work failed, 2 the input or the usage was wrong (one",
        "sentence says what; `--debug` shows the traceback), 130 interrupted. Interrupting is safe: the same command",
        "continues.",
        "",
        *_help("moodal", group.get_help(above)),
    ]
    for name, command in group.commands.items():
        context = command.context_class(command, info_name=name, parent=above, **size)
        lines += [f"## {name}", "", *_help(f"moodal {name}", command.get_help(context))]
    return "\n".join(lines).rstrip() + "\n"


def _help(title: str, text: str) -> list[str]:
    return ["```text", f"$ {title} --help", *(line.rstrip() for line in text.splitlines()), "```", ""]


def models() -> str:
    rows = ["| name | in tables | what it is | kind |", "|---|---|---|---|"]
    for name, entry in MODELS.items():
        doc = (entry.cls.__doc__ or "").splitlines()[0].replace("|", "\\|")
        kind = "control, closed form" if entry.cls.closed_form else "control" if entry.cls.is_control else "candidate"
        fixed = ", ".join(f"`{k}={v}`" for k, v in entry.fixed.items())
        rows.append(f"| `{name}` | {entry.title} | {doc}{f' Fixed: {fixed}.' if fixed else ''} | {kind} |")
    return "\n".join(rows)


def options() -> str:
    """One row per option and default: which models have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in MODELS:
        for option, default in options_of(name).items():
            found.setdefault((option, _value(default)), []).append(name)
    order = {option: i for i, option in enumerate(OPTIONS)}
    for option, _ in found:
        if option not in order:
            raise SystemExit(f"docs/generate.py: say in OPTIONS what the option {option!r} means")
    rows = ["| option | default | what it does | of |", "|---|---|---|---|"]
    for (option, default), names in sorted(found.items(), key=lambda item: order[item[0][0]]):
        of = "all models" if len(names) == len(MODELS) else ", ".join(f"`{n}`" for n in names)
        rows.append(f"| `{option}` | `{default}` | {OPTIONS[option]} | {of} |")
    return "\n".join(rows)


SCREEN = {
    "cut": "`shot`: every shot is a clip; `speech`: a shot longer than `max_s` becomes a clip per stretch of speech",
    "pause_s": "seconds of silence that end a stretch of speech",
    "min_s": "seconds; shorter clips fall",
    "max_s": "seconds; longer ones fall",
    "min_loudness_db": "of the loudest tenth of a second; full scale is 0",
    "duplicates": "of clips that were seen before (titles, repeats) only the first stays",
    "min_speech_share": "of the clip's time",
    "min_face_share": "of its time, in which just one face is seen; and again, in which it looks ahead",
    "max_faces_share": "of its time, in which more than one is seen",
    "max_yaw_deg": "how far a face may turn and still look ahead",
    "max_pitch_deg": "how far it may nod",
    "min_face_height": "of the picture's; smaller faces are not counted",
    "looks_per_s": "pictures in which faces are looked for; another value measures again",
    "voices": "whether more than one voice is looked for; it needs a model (`moodal doctor --install voice`)",
    "max_voice_distance": "between two halves of the speech; one speaker's is small",
}
ANNOTATE = {
    "conditions": "what is labelled; `text` may join them",
    "labels_per_clip": "different people for each clip and condition",
    "emotions": "what may be answered, in the order of the keys",
    "intensities": "and how strong, except for neutral",
    "seed": "of everyone's order",
    "gap_days": "a person may meet a clip in another condition after so many days, before all single passes are done",
    "gap_clips": "and after so many other clips",
    "qualification": "gold clips to answer before each condition",
    "qualification_share": "of them that must be right",
    "hold_minutes": "an unanswered clip then goes to somebody else",
}
BALANCE = {
    "num_classes": "the largest classes that are kept",
    "rule": "what makes an emotional clip sure enough: `intensity` (most call it strong), `confidence` (so large a "
    "share of the votes), `either`, `both`, `none`",
    "confident": "that share",
    "neutral": "the class that has no intensity",
    "neutral_multiple": "it is cut to so many times the largest other class (SDME: 795 / 1312); `none` leaves it",
    "caps": "the most clips of a class: `--cap angry=500`",
    "min_votes": "clips with fewer in the full condition fall",
    "min_share": "of the votes that the winner must have",
    "seed": "of the draw where a class is cut",
    "labels": "the emotions that may occur; unknown ones are refused",
    "intensities": "weakest first",
}


def step_settings(kind: type, meaning: dict[str, str]) -> str:
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    rows += [f"| `{f.name}` | {_shown(f)} | {meaning[f.name]} |" for f in fields(kind)]
    return "\n".join(rows)


def _shown(f: Field[object]) -> str:
    value = f.default if f.default is not MISSING else None
    if isinstance(value, float):
        value = f"{value:.4g}"
    text = ",".join(value) if isinstance(value, tuple) else _value(value)
    return f"`{text}`" if value is not None else ""


def settings() -> str:
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    rows += [f"| `{f.name}` | `{_value(f.default)}` | {SETTINGS[f.name]} |" for f in fields(TrainingSettings)]
    return "\n".join(rows)


def metrics() -> str:
    tasks = {
        "any classes": Task(("a", "b")),
        "negative, neutral, positive": Task(SENTIMENT),
        "scores on any interval": Task(low=0.0, high=1.0),
        "scores on [-3, 3]": Task(low=-3.0, high=3.0),
        "scores on [-1, 1]": Task(low=-1.0, high=1.0),
    }
    has = {task: measures(t).keys() for task, t in tasks.items()}
    rows = ["| metric | what it is | better | where |", "|---|---|---|---|"]
    for name, text in DESCRIPTIONS.items():
        where = "; ".join(_broadest([task for task in tasks if name in has[task]]))
        rows.append(f"| `{name}` | {text} | {'higher' if HIGHER_IS_BETTER[name] else 'lower'} | {where} |")
    return "\n".join(rows)


def _broadest(tasks: list[str]) -> list[str]:
    """ "any classes" includes the sentiment classes, and "any interval" the two named ones."""
    narrow = [t for t in tasks if not t.startswith(("any", "scores on any"))]
    wide = [t for t in tasks if t not in narrow]
    return wide or narrow


def _value(x: object) -> str:
    return str(x).lower() if isinstance(x, bool) else str(x)


def spaces() -> str:
    return f"```toml\n{SHIPPED.read_text(encoding='utf-8')}```"


BLOCKS: dict[str, Callable[[], str]] = {
    "models": models,
    "options": options,
    "settings": settings,
    "metrics": metrics,
    "spaces": spaces,
    "screen": lambda: step_settings(ScreenSettings, SCREEN),
    "annotate": lambda: step_settings(AnnotationSettings, ANNOTATE),
    "balance": lambda: step_settings(BalanceSettings, BALANCE),
}


def pages() -> dict[Path, str]:
    """Every page with something generated in it, as it should be."""
    made = {DOCS / "commands.md": commands()}
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        filled = BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", text)
        if BLOCK.search(text):
            made[page] = filled
    return made


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
