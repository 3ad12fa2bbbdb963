"""What the agreement report says, against counting by hand, and against what is known of CREMA-D."""

import json
import math
import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from moodal.labels.estimates import AgreementOptions
from moodal.labels.people import MIN_SHARED
from moodal.labels.report import agreement_of, measure_agreement
from moodal.labels.votes import read_votes
from moodal.types import InputError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
QUICK = AgreementOptions(samples=50)
LABELS = ("neutral", "happy", "sad")


def two_people(shown, clips):
    """Rows in which anna and ben agree on ``clips``: (label or two labels apart) per clip."""
    return [
        (f"c{k}", shown, person, label)
        for k, said in enumerate(clips)
        for person, label in zip(("anna", "ben"), said.split() * 2, strict=False)
    ]


@pytest.fixture
def crowd(write_votes):
    """Three people, 60 clips, right in 80, 70 and 50 of 100, and their labels as an array (people, clips)."""
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=60)
    said = np.stack([np.where(rng.random(60) < p, truth, rng.integers(3, size=60)) for p in (0.8, 0.7, 0.5)])
    rows = [
        (f"c{k}", "full", person, LABELS[said[p, k]])
        for p, person in enumerate(("anna", "ben", "carl"))
        for k in range(60)
    ]
    return write_votes(rows), said


def test_numbers_of_clips_votes_and_people(write_votes):
    rows = [*two_people("full", ["happy", "sad", "happy sad"]), ("c3", "full", "carl", "sad")]
    (c,) = measure_agreement(write_votes(rows), QUICK).conditions
    assert (c.condition, c.clips, c.units, c.votes, c.people) == ("full", 4, 3, 7, 3)
    assert (c.one_winner, c.unanimous) == (3, 2)
    assert c.percent.value == pytest.approx(2 / 3)
    assert c.labels == {"happy": 3, "sad": 4}


def test_the_mean_kappa_is_over_pairs_of_people(crowd):
    path, said = crowd
    (c,) = measure_agreement(path, replace(QUICK, samples=300)).conditions
    pairs = [cohen_kappa_score(said[a], said[b]) for a, b in combinations(range(3), 2)]
    assert c.cohen_pairs == 3
    assert c.cohen.value == pytest.approx(np.mean(pairs))
    assert c.cohen.low < c.cohen.value < c.cohen.high
    assert c.fleiss_is == "Fleiss"


def test_pairs_that_share_too_few_clips_say_nothing(write_votes):
    (c,) = measure_agreement(
        write_votes(two_people("full", ["happy", "sad"] * (MIN_SHARED // 2 - 1))), QUICK
    ).conditions
    assert (c.cohen, c.cohen_pairs) == (None, 0)


def test_everybody_is_measured_against_the_others(crowd):
    path, said = crowd
    people = {p.annotator: p for p in measure_agreement(path, QUICK).people}
    for k, name in enumerate(("anna", "ben", "carl")):
        others = [j for j in range(3) if j != k]
        assert people[name].percent.value == pytest.approx(np.mean(said[k] == said[others]))
    assert people["carl"].kappa.value < people["ben"].kappa.value


def test_between_conditions_only_clips_with_one_winner_in_both_count(write_votes):
    full = two_people("full", ["happy", "sad", "happy sad", "neutral"])
    audio = two_people("audio", ["neutral", "sad", "sad", "neutral happy"])
    (b,) = measure_agreement(write_votes([*full, *audio]), QUICK).between
    assert (b.first, b.second, b.clips, b.same) == ("audio", "full", 2, 1)
    assert b.share.value == 0.5
    assert b.share.low < 0.5 < b.share.high
    names = ("neutral", "happy", "sad")
    assert b.confusion[names.index("neutral")][names.index("happy")] == 1
    assert np.sum(b.confusion) == 2


def test_whom_the_full_clip_follows_where_voice_and_face_disagree(write_votes):
    audio = two_people("audio", ["sad", "sad", "sad", "sad", "sad sad", "happy sad"])
    vision = two_people("vision", ["happy", "happy", "happy", "happy", "sad", "happy"])
    full = two_people("full", ["happy", "happy", "sad", "neutral", "sad", "happy"])
    (f,) = measure_agreement(write_votes([*audio, *vision, *full]), QUICK).follows
    assert (f.first, f.second, f.clips) == ("audio", "vision", 4)
    assert (f.as_first, f.as_second, f.as_neither) == (1, 2, 1)
    assert f.share_second.value == 0.5


def test_consistency_is_of_what_people_say_after_adjudication(write_votes):
    columns = ("clip", "condition", "annotator", "label", "round")
    rows = [(*row, "main") for row in two_people("full", ["happy", "happy sad", "happy sad", "sad happy"])]
    rows += [("c1", "full", p, "sad", "adjudication") for p in ("anna", "ben")]
    rows += [("c2", "full", p, label, "adjudication") for p, label in (("anna", "sad"), ("ben", "happy"))]
    c = measure_agreement(write_votes(rows, columns), QUICK).consistency
    assert (c.units, c.at_first, c.adjudicated, c.final) == (4, 1, 2, 2)
    assert c.share.value == 0.5


def test_qualification_and_adjudication_are_no_independent_votes(write_votes):
    columns = ("clip", "condition", "annotator", "label", "round")
    rows = [(*row, "main") for row in two_people("full", ["happy", "sad"])]
    more = [("c0", "full", p, "sad", r) for p in ("carl", "dora") for r in ("qualification", "adjudication")]
    alone, with_them = (measure_agreement(write_votes(x, columns), QUICK) for x in (rows, rows + more))
    assert alone.conditions == with_them.conditions


def test_intensity_is_ordinal_and_where_nobody_says_one_there_is_none(write_votes):
    columns = ("clip", "condition", "annotator", "label", "intensity")
    said = ["weak", "weak", "strong", "strong", "weak", "strong", "", ""]
    rows = [(*row, strength) for row, strength in zip(two_people("full", ["happy"] * 4), said, strict=True)]
    (c,) = measure_agreement(write_votes(rows, columns), QUICK).conditions
    assert c.intensity_units == 3
    assert c.intensity.value == pytest.approx(4 / 9)  # 1 - (2 / 6) / (18 / 30)
    (c,) = measure_agreement(write_votes([row[:4] for row in rows]), QUICK).conditions
    assert c.intensity is None


@pytest.mark.parametrize(
    "rows",
    [[("c", "full", "a", "sad")], two_people("full", ["sad"] * 3), two_people("text", ["happy sad", "sad"])],
    ids=["one vote", "one label", "one condition"],
)
def test_what_is_not_defined_is_null_and_a_dash(write_votes, rows):
    report = measure_agreement(write_votes(rows), QUICK)
    json.dumps(report.as_dict(), allow_nan=False)
    assert not any("nan" in line.replace(",", " ").split() for line in report.lines())


def test_without_main_votes_there_is_nothing_to_measure(write_votes):
    columns = ("clip", "condition", "annotator", "label", "round")
    with pytest.raises(InputError, match="no votes of the main round"):
        measure_agreement(write_votes([("c", "full", "a", "sad", "adjudication")], columns))


def test_the_same_votes_in_another_order_give_the_same_report(crowd, write_votes):
    path, _ = crowd
    lines = path.read_text().splitlines()
    first = measure_agreement(path, QUICK).conditions
    path.write_text("\n".join([lines[0], *lines[:0:-1]]))
    again = measure_agreement(path, QUICK).conditions
    assert (again[0].alpha, again[0].cohen) == (first[0].alpha, first[0].cohen)


def test_the_lines_say_it(crowd):
    said = "\n".join(measure_agreement(crowd[0], QUICK).lines())
    for part in ("180 votes", "Cohen: the mean over pairs", "anna", "all agree on", "nothing was adjudicated"):
        assert part in said


def test_hundreds_of_people_are_no_trouble(write_votes):
    rng = np.random.default_rng(0)
    rows = [(f"c{k}", "full", f"p{p}", LABELS[rng.integers(3)]) for k in range(40) for p in rng.permutation(300)[:9]]
    report = measure_agreement(write_votes(rows), QUICK)
    assert report.conditions[0].cohen is None
    assert all(math.isnan(p.kappa.low) for p in report.people)


@pytest.mark.corpus
def test_crema_d_is_what_is_known_of_it():
    path = DATA / "crema_d" / "tabulatedVotes.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set MOODAL_DATA")
    report = agreement_of(read_votes(path), QUICK)
    voice_and_face = report.between_all[0]
    (whom,) = report.follows
    assert report.in_all == voice_and_face.clips == 6042
    assert voice_and_face.share.value == pytest.approx(0.538, abs=5e-4)
    assert (whom.first, whom.second, whom.clips) == ("audio", "vision", 2794)
    assert whom.share_second.value == pytest.approx(0.675, abs=5e-4)
    assert whom.share_first.value == pytest.approx(0.196, abs=5e-4)
    alphas = {c.condition: c.alpha.value for c in report.conditions}
    assert alphas == pytest.approx({"audio": 0.281, "vision": 0.458, "full": 0.497}, abs=5e-4)
