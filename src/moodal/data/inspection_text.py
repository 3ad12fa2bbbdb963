"""The measurements of a data set in words: warnings, and the report that a person reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from moodal.types import SPLITS

FEW_TEXTS = 0.05  # distinct texts over utterances; below, text says little about anything
FEW_CLIPS = 10  # of a class in a split: its recall moves by a tenth when one clip changes
FITTED_GAP = 0.1  # cross-validated accuracy within train above the one on another split, when features knew the labels


# Warnings


def warnings_of(r: dict[str, Any]) -> list[str]:
    """A sentence for everything in the measurements that a careful person would stop at."""
    return [
        *_split_warnings(r),
        *_leakage_warnings(r),
        *_class_warnings(r),
        *_precision_warnings(r),
        *(w for m in r["dims"] for w in _feature_warnings(m, r)),
        *_text_warnings(r),
        *_agreement_warnings(r),
        *(["the licence is not known; find out before publishing results"] if r["licence"] == "unknown" else []),
    ]


def _split_warnings(r: dict[str, Any]) -> list[str]:
    found = []
    splits = r["splits"]
    if "none" in splits and len(splits) == 1 and not r["folds"]:
        found.append("there are neither splits nor folds; nothing can be trained on this yet")
    elif "none" in splits and len(splits) > 1:
        found.append(f"{splits['none']} utterances are in no split and will not be used")
    elif not r["folds"]:
        found += [f"there is no {s} split" for s in SPLITS if s not in splits]
    if r["unlabelled"]:
        found.append(f"{r['unlabelled']} of {r['utterances']} utterances have no label")
    return found


def _leakage_warnings(r: dict[str, Any]) -> list[str]:
    leakage = r["leakage"]
    found = []
    for kind in ("groups", "speakers", "videos"):
        if kind != "groups" and leakage[kind] == leakage["groups"]:
            continue  # the group is the speaker, or the video: said once
        found += [_shared_sentence(kind, pair, n, r) for pair, n in leakage[kind].items()]
    if not _texts_are_few(r):
        found += [_shared_sentence("texts", pair, n, r) for pair, n in leakage["texts"].items()]
    for m, pairs in leakage["features"].items():
        found += [_shared_sentence(f"identical {m} clips", pair, n, r) for pair, n in pairs.items()]
    for pair, n in leakage["overlapping_segments"].items():
        found.append(f"{n} pairs of segments overlap in time although one is in each of {pair.replace('/', ' and ')}")
    if leakage["groups_across_folds"]:
        found.append(f"{leakage['groups_across_folds']} groups are in more than one fold")
    return found


def _shared_sentence(kind: str, pair: str, n: dict[str, int], r: dict[str, Any]) -> str:
    later = pair.split("/")[1]
    share = n["utterances"] / r["splits"][later]
    where = pair.replace("/", " and ")
    return f"{n['groups']} {kind} are in both {where}; they hold {share:.0%} of {later}"


def _class_warnings(r: dict[str, Any]) -> list[str]:
    found = []
    parts = {s: counts for s, counts in r["classes"].items() if s in SPLITS}
    for s, counts in parts.items():
        for c, n in counts.items():
            if n == 0:
                found.append(f"{s} has no {c}")
            elif n < FEW_CLIPS:
                found.append(f"{s} has only {n} of {c}; one clip moves its recall by {1 / n:.0%}")
    baseline = r["baseline"]
    test_share = baseline and baseline["metric"] == "accuracy" and baseline["splits"].get("test", 0)
    if test_share and test_share > 0.7:
        found.append(f"always saying {baseline['constant']!r} is right on {test_share:.0%} of test; look at macro F1")
    if len(parts) > 1 and (p := _same_shares_p(parts)) is not None and p < 1e-3:
        found.append(f"the splits differ in their class shares by more than chance (chi-square, p = {p:.1g})")
    return found


def _same_shares_p(parts: dict[str, dict[str, int]]) -> float | None:
    from scipy.stats import chi2_contingency

    table = np.array([list(counts.values()) for counts in parts.values()])
    table = table[:, table.sum(0) > 0]
    table = table[table.sum(1) > 0]
    return float(chi2_contingency(table).pvalue) if min(table.shape) > 1 else None


def _precision_warnings(r: dict[str, Any]) -> list[str]:
    precision = r["precision"]
    if precision is None:
        return []
    found = []
    if precision["interval"] > 0.03:
        found.append(
            f"with {precision['utterances']} test utterances one accuracy is known to "
            f"±{100 * precision['interval']:.1f} points, and a difference between two models under about "
            f"{100 * precision['difference']:.1f} points will mostly not be found"
        )
    if precision["groups"] is not None and precision["groups"] < 10:
        found.append(f"test holds {precision['groups']} groups only; intervals over clips are too narrow")
    if precision["groups"] is None:
        found.append("utterances carry no group, so a speaker or video in two splits cannot be noticed")
    return found


def _feature_warnings(m: str, r: dict[str, Any]) -> list[str]:
    health, lengths, missing = r["health"][m], r["lengths"][m], r["missing"][m]
    present = r["utterances"] - missing["all"]
    found = []
    if missing["all"]:
        found.append(f"{m} is missing in {missing['all']} utterances ({missing['all'] / r['utterances']:.1%})")
        if tells := _missing_tells(missing, r):
            found.append(tells.format(m=m))
    if health["constant"]:
        found.append(
            f"{m}: {len(health['constant'])} of {r['dims'][m]} columns never change: {_some(health['constant'])}"
        )
    if health["scale_ratio"] and health["scale_ratio"] > 1e4:
        found.append(f"{m}: columns differ in scale by {health['scale_ratio']:.0e}; standardise them")
    if health["extremes"]:
        columns = [f"{name} ({reach:.0f} times)" for name, reach in health["extremes"].items()]
        found.append(f"{m}: some values lie far outside the range of 98 % of their column: {_some(columns)}")
    if lengths["min"] == lengths["max"] > 1:
        found.append(f"{m}: every clip has exactly {lengths['max']} steps; were they cut or padded to that?")
    if health["zero_tail"] > 0.01 * present:
        found.append(f"{m}: {health['zero_tail']} clips end in all-zero steps; padding seems stored as data")
    if health["zero_clips"]:
        found.append(f"{m}: {health['zero_clips']} clips are nothing but zeros; import them as missing")
    if health["frozen"]:
        found.append(f"{m}: {health['frozen']} clips of several steps never change, as when a tracker lost the face")
    return found + _fitted_warnings(m, r)


def _missing_tells(missing: dict[str, Any], r: dict[str, Any]) -> str | None:
    """Missing more often in some classes than chance allows: then absence itself predicts the label."""
    from scipy.stats import chi2_contingency

    total = {c: sum(counts[c] for counts in r["classes"].values()) for c in missing["classes"]}
    table = np.array([(missing["classes"][c], n - missing["classes"][c]) for c, n in total.items() if n])
    if len(table) < 2 or not table.sum(0).all() or chi2_contingency(table).pvalue > 1e-3:
        return None
    shares = {c: missing["classes"][c] / n for c, n in total.items() if n}
    most, least = max(shares, key=lambda c: shares[c]), min(shares, key=lambda c: shares[c])
    return (
        f"{{m}} is missing in {shares[most]:.0%} of {most} and {shares[least]:.0%} of {least}: absence tells the label"
    )


def _fitted_warnings(m: str, r: dict[str, Any]) -> list[str]:
    alone = r["alone"][m]
    rest = [s for s in ("valid", "test") if alone and s in alone]
    if not alone or not rest:
        return []
    worst = min(rest, key=lambda s: alone[s])
    n = r["splits"][worst] - r["missing"][m]["splits"].get(worst, 0)
    noise = math.sqrt(max(1e-6, alone[worst] * (1 - alone[worst])) / max(1, n))
    if alone["train"] - alone[worst] < max(FITTED_GAP, 4 * noise):
        return []
    return [
        f"{m}: a linear probe is right on {alone['train']:.0%} within train (cross-validated) and {alone[worst]:.0%} "
        f"on {worst}; these features seem fitted to the training labels, so models will trust them too much"
    ]


def _texts_are_few(r: dict[str, Any]) -> bool:
    texts = r["texts"]
    return bool(texts and texts["distinct"] < FEW_TEXTS * texts["present"])


def _text_warnings(r: dict[str, Any]) -> list[str]:
    texts = r["texts"]
    if texts is None or not _texts_are_few(r):
        return []
    return [f"there are {texts['distinct']} different texts in {texts['present']} utterances; words can tell little"]


def _agreement_warnings(r: dict[str, Any]) -> list[str]:
    with_label = (r["agreement"] or {}).get("with_label", {})
    return [
        f"{m}'s own label equals the utterance's in every clip; was it labelled, or copied?"
        for m, a in with_label.items()
        if a["all"] == 1
    ]


def _some(names: Sequence[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


# The report as text


def describe(report: dict[str, Any]) -> str:
    """The report for a person: sections of aligned columns, the warnings last, where they are read."""
    r = report
    sections = [
        _head(r),
        _table("Classes", _class_rows(r)),
        _table("Scores", _score_rows(r)),
        _table("Folds", _fold_rows(r)),
        _table("Features", _feature_rows(r)),
        _table("Missing", _missing_rows(r)),
        _table("A modality alone (accuracy of shrinkage LDA on clip means)", _alone_rows(r)),
        _table("Own label equals the utterance's", _agreement_rows(r)),
        _table("Own score and the utterance's", _score_agreement_rows(r)),
        _lines("Reference points", _reference_lines(r)),
        _lines("Notes", r["notes"]),
        _lines(f"Warnings ({len(r['warnings'])})", r["warnings"] or ["none"]),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def _head(r: dict[str, Any]) -> str:
    task = r["task"]
    what = f"{len(task['classes'])} classes" if task["classes"] else f"scores {task['low']:g} to {task['high']:g}"
    splits = ", ".join(f"{_said(s)} {n}" for s, n in r["splits"].items())
    folds = f" in {len(r['folds'])} folds" if r["folds"] else ""
    lines = [f"{r['name']}: {r['utterances']} utterances, {what}", f"splits   {splits}{folds}"]
    lines.append(f"licence  {r['licence']}")
    return "\n".join([*lines, *([f"source   {r['source']}"] if r["source"] else [])])


def _said(split: str) -> str:
    return "no split" if split == "none" else split


def _class_rows(r: dict[str, Any]) -> list[list[str]]:
    if not r["classes"]:
        return []
    parts = list(r["classes"])
    rows = [["", *map(_said, parts), "share"]]
    for c in r["task"]["classes"]:
        counts = [r["classes"][s][c] for s in parts]
        rows.append([c, *map(str, counts), _percent(sum(counts) / r["utterances"])])
    return rows


def _score_rows(r: dict[str, Any]) -> list[list[str]]:
    if not r["scores"]:
        return []
    rows = [["", "min", "mean", "max", "std", "negative", "zero", "positive"]]
    for s, v in r["scores"].items():
        rows.append([_said(s), *(f"{v[k]:.2f}" for k in rows[0][1:5]), *(str(v[k]) for k in rows[0][5:])])
    return rows


def _fold_rows(r: dict[str, Any]) -> list[list[str]]:
    if not r["folds"]:
        return []
    rows = [["fold", "utterances", "groups", *r["task"]["classes"]]]
    for f in r["folds"]:
        of_class = [str(f["classes"].get(c, 0)) for c in r["task"]["classes"]]
        rows.append([str(f["fold"]), str(f["utterances"]), str(f["groups"]), *of_class])
    return rows


def _feature_rows(r: dict[str, Any]) -> list[list[str]]:
    rows = [["", "dims", "steps min", "median", "max", "zeros", "constant", "scale ratio", "extractor"]]
    for m, dim in r["dims"].items():
        n, h, e = r["lengths"][m], r["health"][m], r["extractors"][m]
        ratio = "-" if h["scale_ratio"] is None else f"{h['scale_ratio']:.3g}"
        sizes = [str(dim), str(n["min"]), f"{n['median']:g}", str(n["max"])]
        rows.append([m, *sizes, _percent(h["zeros"]), str(len(h["constant"])), ratio, f"{e['name']} {e['version']}"])
    return rows


def _missing_rows(r: dict[str, Any]) -> list[list[str]]:
    if not any(v["all"] for v in r["missing"].values()):
        return []
    parts = list(r["splits"])
    return [["", *map(_said, parts)], *([m, *(str(v["splits"][s]) for s in parts)] for m, v in r["missing"].items())]


def _alone_rows(r: dict[str, Any]) -> list[list[str]]:
    known = {m: a for m, a in r["alone"].items() if a}
    if not known:
        return []
    said = {"train": "train (cross-validated)", "valid": "valid", "test": "test", "folds": "over the folds"}
    shown = [s for s in said if any(s in a for a in known.values())]
    rows = [["", *(said[s] for s in shown)]]
    return rows + [[m, *(_percent(a.get(s)) for s in shown)] for m, a in known.items()]


def _agreement_rows(r: dict[str, Any]) -> list[list[str]]:
    if not r["agreement"] or "with_label" not in r["agreement"]:
        return []
    classes = r["task"]["classes"]
    rows = [["", "all", *classes]]
    for m, a in r["agreement"]["with_label"].items():
        rows.append([m, _percent(a["all"]), *(_percent(a["classes"][c]) for c in classes)])
    return rows + [[pair, _percent(share)] for pair, share in r["agreement"]["between"].items()]


def _score_agreement_rows(r: dict[str, Any]) -> list[list[str]]:
    scores = (r["agreement"] or {}).get("scores")
    if not scores:
        return []
    rows = [["", "labelled", "same sign", "correlation"]]
    for m, a in scores.items():
        correlation = "-" if a["correlation"] is None else f"{a['correlation']:.2f}"
        rows.append([m, str(a["labelled"]), _percent(a["same_sign"]), correlation])
    return rows


def _reference_lines(r: dict[str, Any]) -> list[str]:
    lines = []
    if b := r["baseline"]:
        values = ", ".join(f"{_said(s)} {v:.3f}" for s, v in b["splits"].items())
        answer = b["constant"] if isinstance(b["constant"], str) else f"{b['constant']:g}"
        lines.append(f"always answering {answer}: {b['metric']} {values}")
    if r["bayes_accuracy"] is not None:
        lines.append(f"best possible accuracy on test (exact Bayes rule): {r['bayes_accuracy']:.3f}")
    if p := r["precision"]:
        lines.append(
            f"{p['utterances']} utterances to test on: an accuracy of .8 is known to ±{100 * p['interval']:.1f} "
            f"points; two models must differ by about {100 * p['difference']:.1f}"
        )
    if t := r["texts"]:
        lines.append(f"{t['distinct']} different texts in {t['present']} utterances that have one")
    return lines


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _table(title: str, rows: list[list[str]]) -> str:
    """First and last text columns to the left, numbers to the right; '' when there are no rows."""
    if len(rows) < 2:
        return ""
    size = max(map(len, rows))
    full = [row + [""] * (size - len(row)) for row in rows]
    widths = [max(len(row[i]) for row in full) for i in range(size)]
    left = {0} | ({size - 1} if rows[0][-1] == "extractor" else set())
    lines = []
    for row in full:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join([title, *lines])


def _lines(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"  - {line}" for line in lines)]) if lines else ""
