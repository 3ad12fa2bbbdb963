"""The same emotion in the same colour, on every picture and in the terminal.

Paul Tol's "muted" scheme (https://sros.nl, SRON/EPS/TN/09-002): told apart by people who see red and green alike. It
shares nothing with the colours of the modalities, which stand in the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

# as in the figures of a benchmark, which are a neighbour at this level
MODALITY_COLOURS = {"text": "#0072B2", "audio": "#E69F00", "vision": "#009E73"}

GREY, SAND, ROSE, INDIGO, CYAN = "#AAAAAA", "#DDCC77", "#CC6677", "#332288", "#88CCEE"
OLIVE, PURPLE, TEAL, WINE, GREEN = "#999933", "#AA4499", "#44AA99", "#882255", "#117733"
SPARE = ("#77AADD", "#EE8866", "#FFAABB", "#BBCC33", "#6F4C9B", "#8B5A2B", "#5F7F5F", "#C0A5CF")  # for the rest

EMOTIONS = {
    GREY: ("neutral", "other", "none"),
    SAND: ("happy", "happiness", "joy", "joyful", "amusement", "positive"),
    ROSE: ("angry", "anger"),
    INDIGO: ("sad", "sadness", "negative"),
    CYAN: ("surprise", "surprised"),
    OLIVE: ("disgust", "disgusted"),
    PURPLE: ("fear", "fearful", "afraid"),
    TEAL: ("calm", "relaxed"),
    WINE: ("contempt", "frustrated", "frustration"),
    GREEN: ("excited", "excitement", "pride"),
}
KNOWN = {name: colour for colour, names in EMOTIONS.items() for name in names}


def colours_of(classes: Iterable[str]) -> dict[str, str]:
    """A colour per class; those we have no word for get what is left, by their name and not by their place."""
    classes = tuple(classes)
    found = {c: KNOWN[c.strip().lower()] for c in classes if c.strip().lower() in KNOWN}
    pool = [colour for colour in (*EMOTIONS, *SPARE) if colour != GREY]
    for c in sorted(set(classes) - found.keys()):
        first = int(hashlib.sha256(c.encode("utf-8", "replace")).hexdigest(), 16) % len(pool)
        order = pool[first:] + pool[:first]
        taken = set(found.values())
        found[c] = next((colour for colour in order if colour not in taken), order[0])
    return {c: found[c] for c in classes}


def score_colour(share: float) -> str:
    """From blue (-1) over grey (0) to orange (1); what lies beyond is as they are."""
    ends = {-1: (0x36, 0x4B, 0x9A), 0: (0xD8, 0xD8, 0xD8), 1: (0xDD, 0x7A, 0x22)}
    share = max(-1.0, min(1.0, share))
    end, middle = ends[1 if share > 0 else -1], ends[0]
    return "#" + "".join(f"{round(m + abs(share) * (e - m)):02X}" for e, m in zip(end, middle, strict=True))
