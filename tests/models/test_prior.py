"""The prior: known faces, voices and words give the known answer, and what is not there counts nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch

from moodal.batch import Batch, Ragged
from moodal.data.store import FeatureSpec, new_dataset, read_dataset
from moodal.experiment import load_model
from moodal.features.audio import COLUMNS as AUDIO
from moodal.features.audio import SAMPLE_RATE_HZ, audio_features
from moodal.features.lexicon import COLUMNS as LEXICON
from moodal.features.openface import AU_COLUMNS
from moodal.features.vision import COLUMNS as PROXIES
from moodal.models import MODELS, FusionModel, chosen_models, create_model, options_of
from moodal.models.prior import (
    EMOTIONS,
    KNOWN,
    NORMAL_DB,
    STEP_DB,
    UNITS,
    VOICE_CONFIDENCE,
    Prior,
    emotions_of,
    face_evidence,
    spectral_balance,
    unit_weights,
)
from moodal.types import SPLITS, InputError, Task, Utterance

NAMES = {"text": LEXICON, "audio": AUDIO, "vision": AU_COLUMNS}
TASK = Task(EMOTIONS)
Array = npt.NDArray[np.float32]


def prior(task: Task = TASK, names: Mapping[str, Sequence[str]] = NAMES, **options: str) -> FusionModel:
    return create_model("prior", {m: len(c) for m, c in names.items()}, task, names, **options).eval()


def face(*units: int, steps: int = 5, intensity: float = 3.0) -> Array:
    """Steps on which these units stand with this intensity, and no others."""
    row = [
        (intensity if name.endswith("r") else 1.0) * (int(name[2:4]) in units)
        for name in AU_COLUMNS
    ]  # fmt: skip
    return np.tile(np.array(row, np.float32), (steps, 1))


def voice(balance_db: float, *, steps: int = 40, spread_db: float = 10.0) -> Array:
    """Steps whose spectrum is flat but for this step between below and above 1 kHz, in syllables."""
    rng = np.random.default_rng(0)
    high = np.linspace(0, 3172, 130)[1:-1] > 1000  # the mel scale: 1000 mel are 1000 Hz
    levels = rng.normal(0, spread_db, (steps, 1)) + balance_db * high  # (steps, bands)
    k = np.arange(128)
    basis = np.cos(np.pi * (k[:, None] + 0.5) * np.arange(20) / 128) * np.sqrt(2 / 128)
    basis[:, 0] = np.sqrt(1 / 128)
    rows = np.zeros((steps, len(AUDIO)))
    rows[:, 1:21] = levels @ basis
    return rows.astype(np.float32)


def words(compound: float) -> Array:
    return np.array([[compound, max(compound, 0), max(-compound, 0), 1 - abs(compound)]], np.float32)


def batch(**clips: Sequence[Array | None]) -> Batch:
    """One row per clip; None is missing."""
    inputs = {}
    for m, rows in clips.items():
        kept = [torch.from_numpy(r) for r in rows if r is not None]
        width = len(NAMES[m])
        values = torch.cat(kept) if kept else torch.zeros(0, width)
        inputs[m] = Ragged(values, torch.tensor([0 if r is None else len(r) for r in rows]))
    return Batch(inputs)


def mixed() -> Batch:
    """Eight utterances with different faces, voices and words, some of them missing."""
    return batch(
        text=[words(0.8), None, words(-0.6), words(0.0), None, words(0.3), None, words(-0.9)],
        audio=[voice(0.0), voice(-9.0), None, voice(4.0), None, None, None, voice(-2.0, spread_db=2.0)],
        vision=[face(6, 12, 25), face(), face(4, 7, 17), None, face(9, 10, 17), None, None, face(1, 2, 5, 26)],
    )


def answer(model: FusionModel, given: Batch) -> list[str]:
    return [model.task.classes[i] for i in model(given).logits.argmax(1).tolist()]


# Faces


@pytest.mark.parametrize(
    ("units", "emotion"),
    [
        ((), "neutral"),
        ((25, 26), "neutral"),  # merely talking
        ((6, 12), "happy"),
        ((6, 12, 25), "happy"),
        ((1, 4, 15), "sad"),
        ((4, 7, 23), "angry"),
        ((1, 2, 4, 5, 20, 25), "fearful"),
        ((9, 10, 17), "disgusted"),
        ((1, 2, 5, 25, 26), "surprised"),
    ],
)
def test_the_prototypes_of_facs_are_recognised(units: tuple[int, ...], emotion: str) -> None:
    given = batch(text=[None], audio=[None], vision=[face(*units)])
    assert answer(prior(), given) == [emotion]
    probability = prior()(given).unimodal_logits["vision"].softmax(1).max()
    assert probability > 0.5


def test_a_clips_mean_says_what_its_frames_say() -> None:
    frames = np.concatenate([face(6, 12, 25, steps=7), face(steps=3)])
    given = batch(text=[None] * 2, audio=[None] * 2, vision=[frames, frames.mean(0, keepdims=True)])
    first, second = prior()(given).logits
    torch.testing.assert_close(first, second)


def test_the_longer_and_the_stronger_an_expression_the_more_the_face_counts() -> None:
    often = np.concatenate([face(6, 12, steps=8), face(steps=2)])
    seldom = np.concatenate([face(6, 12, steps=2), face(steps=8)])
    faint = face(6, 12, steps=10, intensity=0.2) * (np.arange(35) < 17)
    given = batch(vision=[often, seldom, face(), faint], audio=[voice(0.0)] * 4, text=[words(0.5)] * 4)
    strong, weak, none, hint = prior()(given).relevance[:, 2].tolist()
    assert strong > weak > none > 0
    assert strong > hint > none


def test_steps_with_a_doubtful_face_count_less_and_so_does_their_clip() -> None:
    names = (*AU_COLUMNS, "confidence")
    model = prior(names={"vision": names, "text": LEXICON})
    smile, scowl = face(6, 12, 25), face(4, 7, 23)

    def seen(sure_smile: float, sure_scowl: float) -> Batch:
        confidence = np.repeat([sure_smile, sure_scowl], 5)[:, None]
        rows = np.concatenate([np.concatenate([smile, scowl]), confidence], axis=1).astype(np.float32)
        x = Ragged(torch.from_numpy(rows), torch.tensor([10]))
        return Batch({"vision": x, "text": Ragged(torch.from_numpy(words(0.5)), torch.tensor([1]))})

    happy, angry = EMOTIONS.index("happy"), EMOTIONS.index("angry")
    logits = model(seen(1.0, 0.1)).unimodal_logits["vision"][0]
    assert logits[happy] > logits[angry]
    logits = model(seen(0.1, 1.0)).unimodal_logits["vision"][0]
    assert logits[happy] < logits[angry]
    relevance = [float(model(seen(c, c)).relevance[0, 1]) for c in (0.0, 0.3, 1.0)]
    assert relevance[0] == 0
    assert relevance[0] < relevance[1] < relevance[2]


def test_units_that_the_proxy_hardly_sees_count_less() -> None:
    weights = dict(zip(UNITS, unit_weights(PROXIES).tolist(), strict=True))
    assert weights[9] == weights[10] < weights[5] < weights[1] < weights[12] == 1
    assert unit_weights(AU_COLUMNS).tolist() == [1.0] * len(UNITS)
    assert "proxy" in prior(names={"vision": PROXIES}).reads["vision"]  # type: ignore[index]


def test_the_evidence_is_naive_bayes_against_a_neutral_face() -> None:
    """Against the sum over units, one at a time."""
    active = torch.rand(3, len(UNITS), dtype=torch.float64)
    weights = unit_weights(PROXIES)
    anyway = {25: 0.5, 26: 0.5, 10: 0.2, 17: 0.2, 20: 0.2, 23: 0.2}
    found = face_evidence(active, weights)
    for row in range(3):
        for column, emotion in enumerate(KNOWN.values()):
            total = 0.0
            for j, unit in enumerate(UNITS):
                b = anyway.get(unit, 0.1)
                p = max(emotion.units.get(unit, 0.0), b)
                a = float(active[row, j])
                total += float(weights[j]) * (a * np.log(p / b) + (1 - a) * np.log((1 - p) / (1 - b)))
            assert float(found[row, column]) == pytest.approx(total)
    assert (found[:, 0] == 0).all()


# Voices


def test_an_effortful_voice_is_aroused_and_an_idle_one_is_not() -> None:
    task = Task(("sad", "neutral", "angry"))
    given = batch(text=[None] * 3, vision=[None] * 3, audio=[voice(b) for b in (-12.0, NORMAL_DB, 2.0)])
    assert answer(prior(task), given) == ["sad", "neutral", "angry"]


def test_the_microphones_gain_changes_nothing() -> None:
    quiet = voice(-3.0)
    loud = quiet.copy()
    loud[:, 1] += 30 * np.sqrt(128)  # 30 dB in every band
    first, second = prior()(batch(text=[None] * 2, vision=[None] * 2, audio=[quiet, loud])).logits
    torch.testing.assert_close(first, second)


def test_without_syllables_there_is_no_voice_to_believe() -> None:
    rows = [voice(0.0, spread_db=s) for s in (0.0, 3.0, 30.0)]
    given = batch(text=[words(1.0)] * 3, vision=[None] * 3, audio=rows)
    hum, murmur, speech = prior()(given).relevance[:, 1].tolist()
    assert hum == pytest.approx(0, abs=1e-6)
    assert hum < murmur < speech
    assert speech == pytest.approx(VOICE_CONFIDENCE / (1 + VOICE_CONFIDENCE))


# ANSI S3.5-1997, table 3: spectrum level of speech in dB at third-octave bands
BANDS_HZ = [160, 200, 250, 315, 400, 500, 630, 800, 1000, 1250, 1600, 2000, 2500, 3150, 4000, 5000]
EFFORTS = {
    "normal": "32.41 34.48 34.75 33.98 34.59 34.27 32.06 28.30 25.01 23.00 20.15 17.32 13.18 11.55 9.33 5.31",
    "raised": "33.81 33.92 38.98 38.57 39.11 40.15 38.78 36.37 33.86 31.89 28.58 25.32 22.35 20.15 16.78 11.47",
    "loud": "35.29 37.76 41.55 43.78 43.30 44.85 45.55 44.05 42.16 40.53 37.70 34.39 30.98 28.21 25.41 18.35",
}


def spoken(effort: str, pitch_hz: float) -> Array:
    """Two seconds of pulses with a moving pitch and four syllables a second, through the spectrum of that effort."""
    t = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    phase = np.cumsum(pitch_hz * 2 ** (0.25 * np.sin(2 * np.pi * 0.7 * t))) / SAMPLE_RATE_HZ
    spectrum = np.fft.rfft(np.diff(np.floor(phase), prepend=0.0))
    hz = np.maximum(np.fft.rfftfreq(len(t), 1 / SAMPLE_RATE_HZ), 1)
    levels = np.array(EFFORTS[effort].split(), float)
    y = np.fft.irfft(spectrum * 10 ** (np.interp(np.log(hz), np.log(BANDS_HZ), levels) / 20), len(t))
    y *= (0.5 + 0.5 * np.sin(2 * np.pi * 4 * t)) ** 2
    return (0.3 * y / np.abs(y).max()).astype(np.float32)


def test_the_references_are_what_our_features_find_in_standard_speech() -> None:
    found = {}
    for effort in EFFORTS:
        balances = []
        for pitch_hz in (110, 210):
            frames = torch.from_numpy(audio_features(spoken(effort, pitch_hz))).double()
            x = Ragged(frames, torch.tensor([len(frames)]))
            balances.append(float(spectral_balance(x, AUDIO)[0]))
        found[effort] = np.mean(balances)
    for steps, effort in enumerate(EFFORTS):
        assert found[effort] == pytest.approx(NORMAL_DB + steps * STEP_DB, abs=0.6)


# Words


def test_hate_is_negative_and_love_positive() -> None:
    pytest.importorskip("vaderSentiment", reason="needs the text extra")
    from moodal.features.lexicon import Lexicon

    texts = ["I hate this, it is terrible", "I love this, it is wonderful", "the door is open"]
    rows = [f.values for f in Lexicon().many(texts)]
    task = Task(("positive", "neutral", "negative"))
    output = prior(task)(batch(text=rows, audio=[None] * 3, vision=[None] * 3))
    assert output.logits[:2].argmax(1).tolist() == [2, 0]
    assert output.logits[2].tolist() == [0, 0, 0]  # nothing known
    assert output.relevance[2].tolist() == [0, 0, 0]


# All together


def test_it_is_a_weighted_product_of_experts() -> None:
    """Against a loop over utterances, classes and modalities."""
    given, model = mixed(), prior()
    output = model(given)
    assert output.relevance is not None
    alone = {m: output.unimodal_logits[m].exp() for m in model.modalities}
    for m in model.modalities:
        torch.testing.assert_close(alone[m].sum(1), torch.ones(8))
    for i in range(8):
        confidences = []
        for m in model.modalities:
            only = given
            for other in model.modalities:
                only = only if other == m else only.without(other)
            said = model(only).logits[i]  # c_m log p_m
            confidences.append(float((said / alone[m][i].log()).mean()))
            assert 0 <= confidences[-1] <= 1 + 1e-5
        product = np.ones(len(EMOTIONS))
        for c, m in zip(confidences, model.modalities, strict=True):
            product *= alone[m][i].double().numpy() ** c
        np.testing.assert_allclose(output.logits[i].softmax(0).numpy(), product / product.sum(), atol=1e-5)
        if sum(confidences):
            np.testing.assert_allclose(output.relevance[i].numpy(), np.array(confidences) / sum(confidences), atol=1e-5)


def test_relevance_sums_to_one_where_anything_is_known_and_is_0_where_it_is_missing() -> None:
    given = mixed()
    relevance = prior()(given).relevance
    assert relevance is not None
    known = torch.tensor([True] * 6 + [False, True])
    torch.testing.assert_close(relevance.sum(1), known.float())
    for i, m in enumerate(given.inputs):
        assert (relevance[~given.present[m], i] == 0).all()


def test_nothing_present_is_uniform() -> None:
    output = prior()(batch(text=[None], audio=[None], vision=[None]))
    assert output.logits.tolist() == [[0.0] * len(EMOTIONS)]
    for logits in output.unimodal_logits.values():
        torch.testing.assert_close(logits.softmax(1), torch.full((1, 7), 1 / 7))


def test_a_missing_modality_speaks_for_no_class_also_beside_others_that_have_it() -> None:
    given = mixed()
    output = prior()(given)
    for m, logits in output.unimodal_logits.items():
        torch.testing.assert_close(logits[~given.present[m]].exp(), torch.full_like(logits[~given.present[m]], 1 / 7))


def test_the_order_of_steps_and_the_company_change_nothing() -> None:
    given, model = mixed(), prior()
    alone = torch.cat([model(given.select(torch.tensor([i]))).logits for i in range(8)])
    torch.testing.assert_close(model(given).logits, alone)
    turned = {}
    for m, x in given.inputs.items():
        parts = [v.flip(0) for v in torch.split(x.values, x.lengths.tolist())]
        turned[m] = Ragged(torch.cat(parts), x.lengths)
    torch.testing.assert_close(model(Batch(turned)).logits, model(given).logits)


def test_it_is_deterministic_and_training_changes_nothing() -> None:
    given, model = mixed(), prior()
    before = model(given).logits
    labelled = replace(given, labels=torch.arange(8) % 7)
    model.fit_standardisation(labelled)
    model.fit(labelled, seed=3)
    assert torch.equal(model(given).logits, before)
    assert torch.equal(prior()(given).logits, before)
    assert not list(model.parameters())


def test_one_modality_can_be_looked_at_alone() -> None:
    given = mixed()
    output = prior(use="vision")(given)
    assert output.relevance is not None
    assert (output.relevance[:, :2] == 0).all()
    missing = given.without("text").without("audio")
    torch.testing.assert_close(output.logits, prior()(missing).logits)
    with pytest.raises(InputError, match="no modality to use here called 'visio'; did you mean 'vision'"):
        prior(use="visio")


def test_features_without_known_columns_are_ignored_with_a_reason() -> None:
    given = mixed()
    names = {**NAMES, "text": ()}
    model = create_model("prior", given.dims, TASK, names)
    assert isinstance(model, Prior)
    assert model.reads.keys() == {"audio", "vision"}
    assert model.ignores == {"text": "needs the column compound (lexicon)"}
    output = model(given)
    assert output.relevance is not None
    assert (output.relevance[:, 0] == 0).all()
    torch.testing.assert_close(output.logits, prior()(given.without("text")).logits)
    with pytest.raises(InputError, match=r"the prior can read none of these features.*vision: action units"):
        create_model("prior", given.dims, TASK, {"text": (), "audio": ("f0",), "vision": AU_COLUMNS[:5]})


# Classes and scores


@pytest.mark.parametrize(
    ("name", "emotions"),
    [
        ("Happiness", ("happy",)),
        ("joy", ("happy",)),
        ("fear", ("fearful",)),
        ("anxious", ("fearful",)),
        ("disgust", ("disgusted",)),
        ("ANG", ("angry",)),
        ("calm", ("calm",)),
        ("positive", ("happy",)),
        ("negative", ("sad", "angry", "fearful", "disgusted")),
    ],
)
def test_class_names_are_understood(name: str, emotions: tuple[str, ...]) -> None:
    assert emotions_of(name) == emotions


def test_an_unknown_class_is_refused_with_those_it_knows() -> None:
    with pytest.raises(InputError, match=r"no emotion that the prior knows called 'sadnes'; did you mean 'sadness'\?"):
        prior(Task(("happy", "sadnes")))
    with pytest.raises(InputError, match=r"called 'hungry'.*There are: .*fearful.*surprised"):
        prior(Task(("happy", "hungry")))


def test_scores_are_valence_on_the_tasks_interval() -> None:
    model = prior(Task(low=-3.0, high=3.0))
    given = batch(
        text=[words(0.5), words(-1.0), None, None, None],
        audio=[voice(0.0), None, voice(3.0), None, None],
        vision=[None, None, None, face(6, 12, 25), face(4, 7, 17, 23)],
    )
    output = model(given)
    assert output.logits.shape == (5, 1)
    scores = output.logits[:, 0].tolist()
    assert scores[:3] == pytest.approx([1.5, -3.0, 0.0])
    assert scores[3] > 1 > -1 > scores[4]
    assert output.relevance is not None
    assert (output.relevance[:, 1] == 0).all()  # a voice tells arousal, not valence


# Through a run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve utterances in three splits, whose faces show their class; the text has no columns."""
    classes = ("neutral", "happiness", "sadness", "anger")
    faces = {"neutral": face(), "happiness": face(6, 12, 25), "sadness": face(1, 4, 15), "anger": face(4, 7, 23)}
    utterances = [
        Utterance(id=f"u{i:02d}", group=f"s{i // 4}", label=classes[i % 4], split=SPLITS[i // 4]) for i in range(12)
    ]  # fmt: skip
    ids = [u.id for u in utterances]
    with new_dataset(tmp_path / "data") as out:
        out.write_features(FeatureSpec("states", "1", "text", 3), ids, [np.ones((2, 3), np.float32)] * 12)
        au = FeatureSpec("openface", "1", "vision", 35, columns=AU_COLUMNS)
        out.write_features(au, ids, [faces[u.label or ""] for u in utterances])
        out.finish(utterances, Task(classes), name="faces")
    return tmp_path / "data"


def test_compare_runs_it_and_the_saved_model_says_the_same(
    folder: Path, tmp_path: Path, moodal: Callable[..., object]
) -> None:
    done = moodal("compare", folder, "--models", "prior", "--seeds", "1", "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    assert "prior (no training)" in done.stdout  # type: ignore[attr-defined]
    data = read_dataset(folder)
    run = tmp_path / "runs" / "prior" / "seed-0"
    table = pq.read_table(run / "predictions.parquet").to_pandas()
    rows = table[table["split"] == "test"]
    assert (rows["predicted"] == rows["label"]).all()
    with torch.inference_mode():
        output = load_model(run)(data.batch.select(data.index(split="test")))
    stored = rows[[f"logit_{c}" for c in data.task.classes]].to_numpy()
    np.testing.assert_array_equal(stored, output.logits.numpy())
    assert output.relevance is not None
    assert rows["relevance_text"].tolist() == [0.0] * 4


def test_it_waits_until_it_is_asked_for() -> None:
    dims = {m: len(c) for m, c in NAMES.items()}
    assert "prior" not in chosen_models(None, dims, TASK)
    assert "prior" not in chosen_models(["all"], dims, TASK)
    assert chosen_models(["prior"], dims, TASK) == ["prior"]
    assert options_of("prior") == {"use": "all"}
    assert MODELS["prior"].cls.is_control
