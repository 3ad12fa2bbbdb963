"""Does MRE+ find how people take a voice or a face for the full clip, from full labels alone?

CREMA-D's clips with one winner in all three conditions: the label is what people call the full clip; the features are
drawn around the mean of what they call the voice alone and the face alone. The model sees features and label, never the
other two votes. Printed: the confusion of the votes (truth) beside T, which the model learned.

    python benchmarks/crema_d.py ../shared/data/crema_d --out build/crema_d
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from moodal.config import Settings
from moodal.data.store import FeatureSpec, new_dataset
from moodal.labels.consensus import winners
from moodal.labels.votes import read_votes
from moodal.training.plan import train_models
from moodal.types import Task, Utterance

SHOWN = {"audio": 33, "vision": 35}  # the paper's features
DISTANCE = {"audio": 3.0, "vision": 4.0}  # between two means, in standard deviations of the noise
CONDITIONS = (*SHOWN, "full")
SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("votes", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/crema_d"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    data = given.out / f"data-{given.seed}"
    won, classes = make_dataset(given.votes, data, given.seed)
    [trained] = train_models(data, ["mre_plus"], 1, Settings({}), given.out / f"runs-{given.seed}", workers=1)
    weights = load_file(trained.run.path / "model.safetensors")
    found = {m: compare(won, m, len(classes), weights[f"transition_{m}"]) for m in SHOWN}
    print(json.dumps(found) if given.json else as_text(found, classes))


def make_dataset(votes_file: Path, folder: Path, seed: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """A data set folder, actors whole in one split; and the winners of its training clips by condition."""
    votes = read_votes(votes_file)
    counts = {c: votes.counts(c) for c in CONDITIONS}
    used = np.flatnonzero(sum(c.sum(0) for c in counts.values()))
    won = {c: winners(n[:, used]) for c, n in counts.items()}
    clear = np.flatnonzero(np.all([w >= 0 for w in won.values()], axis=0))
    won = {c: w[clear] for c, w in won.items()}
    classes = [votes.labels[k] for k in used]
    rng = np.random.default_rng(seed)
    groups = [str(votes.groups[i]) for i in clear]
    actors = rng.permutation(sorted(set(groups)))
    bounds = np.cumsum([0, *SHARES.values()]) * len(actors)
    parts = zip(SHARES, bounds, bounds[1:], strict=False)
    split = {actor: s for s, low, high in parts for actor in actors[int(low) : int(high)]}
    ids = [votes.clips[i] for i in clear]
    if not (folder / "dataset.json").exists():
        with new_dataset(folder) as out:
            for m, dim in SHOWN.items():
                x = drawn(won[m], len(classes), dim, DISTANCE[m], rng)
                out.write_features(FeatureSpec("simulated", "1", m, dim), ids, list(x[:, None]))
            utterances = [
                Utterance(
                    i,
                    label=classes[won["full"][n]],
                    modality_labels={m: classes[won[m][n]] for m in SHOWN},
                    group=groups[n],
                    split=split[groups[n]],
                )
                for n, i in enumerate(ids)
            ]
            out.finish(utterances, Task(tuple(classes)), name="crema_d-votes", licence="ODbL-1.0")
    train = np.array([split[g] == "train" for g in groups])
    return {c: w[train] for c, w in won.items()}, classes


def drawn(own: np.ndarray, num: int, dim: int, distance: float, rng: np.random.Generator) -> np.ndarray:
    """(N, dim): unit noise around one of ``num`` means, all of them ``distance`` apart."""
    axes = np.linalg.qr(rng.normal(size=(dim, num)))[0].T
    return (axes[own] * distance / np.sqrt(2) + rng.normal(size=(len(own), dim))).astype(np.float32)


def compare(won: dict[str, np.ndarray], m: str, num: int, learned: np.ndarray) -> dict[str, object]:
    """Row y: what clips called y are called by ``m`` alone. The error is the mean over all entries."""
    truth = np.zeros((num, num))
    np.add.at(truth, (won["full"], won[m]), 1)
    truth /= truth.sum(1, keepdims=True)
    errors = np.abs(truth - learned)
    naive = np.abs(truth - np.eye(num)).mean()
    return {
        "truth": truth.tolist(),
        "learned": learned.tolist(),
        "error": float(errors.mean()),
        "largest": float(errors.max()),
        "error_of_agreement": float(naive),
    }


def as_text(found: dict[str, dict], classes: list[str]) -> str:
    lines = []
    for m in SHOWN:
        said = found[m]
        lines.append(
            f"{m}: mean error {said['error']:.3f} (were all alike: {said['error_of_agreement']:.3f}), largest "
            f"{said['largest']:.3f}; votes / learned"
        )
        for y, (truth, learned) in enumerate(zip(said["truth"], said["learned"], strict=True)):
            cells = "  ".join(f"{t:.2f}/{x:.2f}" for t, x in zip(truth, learned, strict=True))
            lines.append(f"  {classes[y]:10s} {cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
