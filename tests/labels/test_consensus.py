"""One label per clip: adjudication beats majority, and a clip without a label has the reason."""

import math

import numpy as np
import pytest

from moodal.labels.consensus import REASONS, ConsensusSettings, consensus, winners
from moodal.labels.votes import read_votes
from moodal.types import InputError

COLUMNS = ("clip", "condition", "annotator", "label", "intensity", "round")


@pytest.fixture
def of(write_votes):
    """``of("happy happy sad", settings)``: (label, intensity, reason, share) of a clip with these votes.

    A vote is label[/intensity]; what stands behind a bar are the adjudicators'.
    """

    def settle(said, settings=None):
        main, _, final = said.partition("|")
        rows = [("other", "full", "zoe", "neutral", "", "main"), ("other", "full", "yan", "neutral", "", "main")]
        for round_, votes in (("main", main), ("adjudication", final)):
            for k, vote in enumerate(votes.split()):
                label, _, intensity = vote.partition("/")
                rows.append(("clip", "full", f"{round_}{k}", label, intensity, round_))
        v = read_votes(write_votes(rows, COLUMNS), labels=("neutral", "happy", "sad"))
        c = consensus(v, "full", settings)
        i = v.clips.index("clip")
        label = v.labels[c.label[i]] if c.label[i] >= 0 else None
        strength = v.intensities[c.intensity[i]] if c.intensity[i] >= 0 else None
        return label, strength, REASONS[c.reason[i]], float(c.confidence[i])

    return settle


def test_the_winner_is_whoever_has_most_and_nobody_in_a_tie():
    assert winners(np.array([[2, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])).tolist() == [0, -1, -1, 2]


def test_most_votes_win_and_their_share_is_the_confidence(of):
    assert of("happy happy sad") == ("happy", None, "", pytest.approx(2 / 3))
    assert of("happy happy") == ("happy", None, "", 1.0)


def test_a_tie_has_no_label_until_somebody_decides(of):
    assert of("happy sad")[:3] == (None, None, "tie")
    assert of("happy sad | sad") == ("sad", None, "", 0.5)
    assert of("happy sad | sad happy")[2] == "tie"


def test_adjudication_beats_majority_whatever_is_asked_of_it(of):
    strict = ConsensusSettings(min_votes=5, min_share=0.9)
    assert of("happy happy sad | sad", strict) == ("sad", None, "", pytest.approx(1 / 3))
    assert of("happy happy | invalid")[2] == "invalid"
    assert of(" | sad") == ("sad", None, "", 1.0)


def test_compound_and_invalid_clips_have_no_label(of):
    label, strength, reason, share = of("compound compound happy")
    assert (label, strength, reason) == (None, None, "compound")
    assert math.isnan(share)
    assert of("invalid invalid happy")[2] == "invalid"
    assert of("invalid happy happy")[:1] == ("happy",)


def test_few_votes_and_a_small_share_are_not_enough(of):
    assert of("happy")[2] == "too few votes"
    assert of("happy", ConsensusSettings(min_votes=1))[0] == "happy"
    assert of("happy happy sad neutral", ConsensusSettings(min_share=0.5))[0] == "happy"
    assert of("happy happy sad neutral", ConsensusSettings(min_share=0.6))[2] == "small share"


def test_the_intensity_is_that_of_those_who_gave_the_label(of):
    assert of("happy/strong happy/strong happy/weak sad/weak sad/weak")[1] == "strong"
    assert of("happy/strong happy/weak")[1] == "weak"
    assert of("happy happy/strong")[1] == "strong"
    assert of("happy happy")[1] is None


def test_the_adjudicators_intensity_is_the_last_word(of):
    assert of("happy/weak happy/weak sad | happy/strong")[1] == "strong"
    assert of("happy/weak happy/weak sad | happy")[1] == "weak"


def test_a_clip_that_nobody_saw_in_full_says_so(write_votes):
    v = read_votes(write_votes([("a", "full", "x", "happy"), ("b", "audio", "x", "happy")]))
    assert REASONS[consensus(v, "full").reason[v.clips.index("b")]] == "no votes"


@pytest.mark.parametrize("wrong", [{"min_votes": 0}, {"min_share": 1.5}, {"min_share": float("nan")}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ConsensusSettings(**wrong)
