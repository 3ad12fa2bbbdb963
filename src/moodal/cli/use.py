"""Commands to begin with: the demonstration, a video of one's own, and what works on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from moodal.cli.app import Asr, Json, Seeds, Workers, app, print_json
from moodal.config import Settings
from moodal.types import InputError

# Chosen on validation splits (docs/experiments.md), the same for every network; the variant beside them has the
# paper's text encoder, an LSTM.
DEMO_SETTINGS = Settings({"text_pooling": "mean", "batch_size": 128, "lr": 0.002})
DEMO_MODELS = (
    "mre,mre_baseline,mre_rs,mre_cnce,mre@text_pooling=none,lmf,lf_dnn,late_average,text_only,audio_only,vision_only,"
    "lda,lda_product,lda_stacking"
)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where the data set, the runs and the report go.")] = Path(
        "moodal-demo"
    ),
    clips: Annotated[int, typer.Option(help="How many clips are simulated; a few hundred for a quick look.")] = 3667,
    seeds: Seeds = 5,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """No data needed: simulates SDME, trains MRE, its ablation and controls, prints the table and writes the report."""
    from moodal.cli.studies import compare_and_report
    from moodal.data.simulate import simulate_sdme
    from moodal.data.store import read_info

    data = out / "sdme"
    if not (data / "dataset.json").exists():
        simulate_sdme(data, clips=clips)
    elif (there := read_info(data)["counts"]["utterances"]) != clips:
        raise InputError(f"{data} holds {there} clips, not {clips}; say --clips {there}, or choose another --out")
    compare_and_report(data, DEMO_MODELS, seeds, DEMO_SETTINGS, out / "runs", workers, None, as_json)


@app.command()
def predict(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video or sound file.")],
    model: Annotated[
        str, typer.Option(help="A run's folder, one of several runs (their mean), a model of the hub, or prior.")
    ] = "prior",
    segments: Annotated[
        Path | None, typer.Option(help="A table with start_s, end_s (and text) of what to predict.")
    ] = None,
    cut: Annotated[
        str,
        typer.Option(help="Without --segments: auto, whole, transcript, speech, shots, or a length in seconds."),
    ] = "auto",
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Below this probability it gives no answer.  [default: 0.5; of two classes 0.6]"),
    ] = None,
    text: Annotated[str | None, typer.Option(help="The run's own extractor found elsewhere, or none.")] = None,
    audio: Annotated[str | None, typer.Option(help="The same for the voice.")] = None,
    vision: Annotated[str | None, typer.Option(help="The same for the face.")] = None,
    asr: Asr = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for the timeline (.png), .json, .csv and captions (.vtt).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Emotion of every segment of a video, how far each modality can be believed, and what was missing."""
    from moodal.serving.files import make_folder, write_prediction
    from moodal.serving.prediction import plain
    from moodal.serving.predictor import Predictor
    from moodal.serving.printing import print_prediction

    if out is not None:
        make_folder(out)  # said now, and not after the work
    chosen = {m: spec for m, spec in (("text", text), ("audio", audio), ("vision", vision)) if spec is not None}
    found = Predictor.from_pretrained(model, chosen).predict(
        video, segments=segments, cut=cut, min_confidence=min_confidence, asr=asr or ""
    )
    files = [] if out is None else write_prediction(found, video, out)
    if as_json:
        print_json({**found.as_dict(), "files": [str(f) for f in files]})
        return
    print_prediction(found)
    if files:
        print(f"written: {', '.join(plain(str(f)) for f in files)}")


@app.command()
def doctor(
    install: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT", help="Fetch what packages cannot carry: face (two models, 2 MB), voice (one, 17 MB)."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """What works on this machine, under which licence, and how to get the rest."""
    from moodal import doctor as checks

    if install is not None:
        where = checks.install(install)
        print(f"{install}: in {where}", file=sys.stderr if as_json else sys.stdout)
    found = checks.examine()
    if as_json:
        print_json({"checks": [vars(c) for c in found]})
        return
    for c in found:
        print(f"{'yes' if c.ok else 'no ':3s}  {c.name:24s} {c.detail}" + (f"\n{'':30s}{c.fix}" if c.fix else ""))
