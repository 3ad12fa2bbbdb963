"""Predictions with known answers, to be shown."""

from moodal.serving.prediction import SegmentPrediction, VideoPrediction

CLASSES = ("neutral", "happy", "sad")


def happy(start_s=0.0, end_s=2.0, text="how nice", **other):
    """Sure, all three modalities there, the voice most relevant."""
    said = {
        "speaker": "Ann",
        "emotion": "happy",
        "probabilities": {"neutral": 0.2, "happy": 0.72, "sad": 0.08},
        "relevance": {"text": 0.3, "audio": 0.6, "vision": 0.1},
        "unimodal": {
            "text": {"neutral": 0.1, "happy": 0.8, "sad": 0.1},
            "audio": {"neutral": 0.2, "happy": 0.5, "sad": 0.3},
            "vision": {"neutral": 0.2, "happy": 0.2, "sad": 0.6},
        },
    }
    return SegmentPrediction(start_s, end_s, text, **{**said, **other})


def unsure(start_s=2.0, end_s=3.5, text=None, **other):
    """It abstained: no words, no face."""
    said = {
        "probabilities": {"neutral": 0.4, "happy": 0.3, "sad": 0.3},
        "relevance": {"text": 0.0, "audio": 1.0, "vision": 0.0},
        "unimodal": {"audio": {"neutral": 0.4, "happy": 0.3, "sad": 0.3}},
        "missing": ("text", "vision"),
        "notes": {"text": "no transcript", "vision": "no face in 38 frames"},
        "abstained": True,
        "because": "its best guess is below 50%",
    }
    return SegmentPrediction(start_s, end_s, text, **{**said, **other})


def scored(score, start_s=0.0, end_s=2.0):
    """Of a regression."""
    alone = {"text": {"score": score / 2}, "audio": {"score": -0.25}}
    relevance = {"text": 0.5, "audio": 0.5, "vision": 0.0}
    return SegmentPrediction(
        start_s, end_s, "so it goes", score=score, relevance=relevance, unimodal=alone, missing=("vision",)
    )


def of(*segments, classes=CLASSES, duration_s=4.0, **other):
    return VideoPrediction("films/a.mp4", "prior", duration_s, classes, segments, **other)
