"""CMU-MOSI as one vector per modality, from the features of bc-LSTM (Poria et al., ACL 2017).

The text and video vectors were fitted to the labels of that paper's training videos: a linear model across videos
inside them reaches .98 and .91, on its test videos .75 and .52. Any other split therefore puts fitted utterances into
the test set (MERBench's: 558 of 686, where text scores .93). Both protocols here keep the test videos apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moodal.data.folds import group_folds
from moodal.data.store import FeatureSpec, new_dataset
from moodal.recipes.arrays import check_rows, check_values, read_arrays
from moodal.types import InputError, Task, Utterance, unknown

ARRAYS = ("ids", "bclstm_split", "merbench_split", "transcript", "text", "audio", "video", "y_binary", "y_score")
TASK = Task(("negative", "positive"), low=-3.0, high=3.0)
LICENCE = "research use"
SOURCE = "CMU-MOSI (Zadeh et al. 2016); features: https://github.com/declare-lab/multimodal-deep-learning, bc-LSTM"
PROTOCOLS = ("official", "within_test")
NUM_FOLDS = 5
Array = npt.NDArray[Any]

TRAP = (
    "Text and vision vectors were fitted to the labels of the training videos (linear model: .98 and .91 across videos "
    "inside train, .75 and .52 on test), so a model trained on train trusts vision too much."
)
NOTES = {
    "official": (
        TRAP,
        "Splits: train and test as in bc-LSTM; valid = the training videos that MERBench puts into its validation "
        "split. The valid vectors are fitted like train's: valid scores are far too high, and tuning on them misleads.",
    ),
    "within_test": (
        TRAP,
        f"The clean comparison: only bc-LSTM's test utterances, whose vectors saw no label, in {NUM_FOLDS} folds by "
        "video.",
    ),
}
BOTH = "Class positive is score >= 0 (so it holds the neutral score 0), negative is score < 0."


def import_mosi(npz: Path, target: Path, *, protocol: str = "official", overwrite: bool = False) -> None:
    """Make the data set folder ``target`` from the bc-LSTM features, one step per modality.

    protocol: "official" has train, valid and test; "within_test" cross-validates inside the test videos by video,
    the only comparison that the vectors' fit to the training labels does not touch.
    """
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    x = read_arrays(npz, ARRAYS)
    check_rows(npz, x)
    check_values(npz, "bclstm_split", x["bclstm_split"], ("train", "test"))
    check_values(npz, "merbench_split", x["merbench_split"], ("train", "val", "test"))
    check_values(npz, "y_binary", x["y_binary"], (0, 1))
    splits = [_split(b, m) for b, m in zip(x["bclstm_split"].tolist(), x["merbench_split"].tolist(), strict=True)]
    if "valid" not in splits or "test" not in splits:
        raise InputError(f"{npz}: the splits leave no valid or no test utterance")
    rows = np.array([protocol == "official" or s == "test" for s in splits])
    x = {name: array[rows] for name, array in x.items()}
    utterances = _utterances(x, splits if protocol == "official" else None)
    ids = [u.id for u in utterances]
    with new_dataset(target, overwrite=overwrite) as out:
        for modality, name in (("text", "text"), ("audio", "audio"), ("vision", "video")):
            out.write_features(_spec(modality, x[name].shape[1]), ids, (row[None] for row in x[name]))
        out.finish(
            utterances,
            TASK,
            name="mosi" if protocol == "official" else "mosi-within-test",
            licence=LICENCE,
            source=SOURCE,
            notes=(*NOTES[protocol], BOTH),
            extra={"protocol": protocol},
        )


def _split(bclstm: str, merbench: str) -> str:
    if bclstm == "test":
        return "test"
    return "valid" if merbench == "val" else "train"


def _utterances(x: dict[str, Array], splits: Sequence[str] | None) -> list[Utterance]:
    """``splits`` None asks for folds by video instead."""
    ids = [str(name) for name in x["ids"]]
    videos = [name.rpartition("_")[0] for name in ids]
    folds = None if splits else group_folds(videos, NUM_FOLDS)
    return [
        Utterance(
            id=name,
            video=videos[i],
            group=videos[i],
            text=str(x["transcript"][i]),
            label=TASK.classes[int(x["y_binary"][i])],
            score=round(float(x["y_score"][i]), 6),  # float32 in the file: 2.2, not 2.200000047683716
            split=splits[i] if splits else None,
            fold=folds[i] if folds else None,
        )
        for i, name in enumerate(ids)
    ]


def _spec(modality: str, dim: int) -> FeatureSpec:
    return FeatureSpec(
        name=f"bclstm-{modality}",
        version="1",
        modality=modality,
        dim=dim,
        licence=LICENCE,
        settings={"fitted_to_labels": modality != "audio", "pooled": "one vector per utterance"},
    )
