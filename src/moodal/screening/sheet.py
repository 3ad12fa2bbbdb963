"""The page of a screening: how many clips each filter stopped, every measure with its threshold, and clips to look at.

One file that needs no network and runs no script. Of each kind at most ``SAMPLE`` clips are shown, chosen by their ids:
so a page of 60,000 clips opens, and another threshold shows the same clips where it can.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from moodal.data.clips import Clip
from moodal.files import write_atomic
from moodal.screening.histogram import draw
from moodal.screening.judging import DUPLICATE, FILTERS, REASONS, UNREADABLE, Filter
from moodal.screening.settings import ScreenSettings

SAMPLE = 60
MOST_PROBLEMS = 50
PASSED = "passed"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
TITLES = {UNREADABLE: "unreadable video", DUPLICATE: "seen before"} | {f.name: f.title for f in FILTERS}
ENDS = {  # of the axes, as people read the numbers
    "duration_s": (0.0, 0.0),
    "loudness_db": (-80.0, 0.0),
    "voice_distance": (0.0, 1.0),
}
NUMBERS = (  # on a card: what it is called, which it is, as what it is written
    ("loudest", "loudness_db", "{:.0f} dB", 1.0),
    ("speech", "speech_share", "{:.0f} %", 100.0),
    ("just one face", "face_share", "{:.0f} %", 100.0),
    ("more than one", "faces_share", "{:.0f} %", 100.0),
    ("looks ahead", "frontal_share", "{:.0f} %", 100.0),
    ("turned, nodded", "yaw_deg", "{:.0f}°", 1.0),
    ("height of the face", "face_height", "{:.0f} %", 100.0),
    ("voices apart", "voice_distance", "{:.2f}", 1.0),
)
MEASURE_OF = {f.name: f.measure for f in FILTERS}


def sample_clips(clips: Sequence[Clip]) -> list[Clip]:
    """Those that the page shows: of each reason, and of those that passed, ``SAMPLE`` at most."""
    return [c for _, mine in _by_kind(clips) for c in _sample(mine)]


def _by_kind(clips: Sequence[Clip]) -> list[tuple[str, list[Clip]]]:
    kinds: dict[str, list[Clip]] = {kind: [] for kind in (PASSED, *REASONS)}
    for clip in clips:
        kinds[clip.reason or PASSED].append(clip)
    return [(kind, mine) for kind, mine in kinds.items() if mine]


def _sample(clips: Sequence[Clip]) -> list[Clip]:
    if len(clips) <= SAMPLE:
        return list(clips)
    chosen = {c.id for c in sorted(clips, key=lambda c: hashlib.sha256(c.id.encode()).digest())[:SAMPLE]}
    return [c for c in clips if c.id in chosen]


def write_sheet(
    path: Path,
    clips: Sequence[Clip],
    settings: ScreenSettings,
    pictures: Mapping[str, bytes],
    problems: Mapping[str, str],
    notes: Sequence[str],
) -> None:
    """pictures: a JPEG by clip; problems: by video, why it could not be read."""
    text = "\n".join(_page(path.resolve().parent.name, clips, settings, pictures, problems, notes))
    write_atomic(path, lambda p: p.write_text(text + "\n", encoding="utf-8", errors="replace"))


def _page(
    name: str,
    clips: Sequence[Clip],
    settings: ScreenSettings,
    pictures: Mapping[str, bytes],
    problems: Mapping[str, str],
    notes: Sequence[str],
) -> Iterator[str]:
    kinds = _by_kind(clips)
    first = kinds[0][0] if kinds else PASSED
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Screening of {_text(name)}</title><style>"
    yield Path(__file__).with_name("sheet.css").read_text(encoding="utf-8")
    for kind, _ in kinds:
        yield f"#pick-{kind}:checked ~ .sample-{kind} {{ display: block; }}"
        yield f"#pick-{kind}:checked ~ .chips label[for=pick-{kind}] {{ background: var(--ink); color: var(--paper); }}"
        yield f"#pick-{kind}:checked ~ .chips label[for=pick-{kind}] span {{ color: inherit; opacity: 0.7; }}"
        yield f"#pick-{kind}:focus-visible ~ .chips label[for=pick-{kind}] {{ outline: 2px solid var(--good); }}"
    yield f"</style></head><body><header><h1>Screening of {_text(name)}</h1>"
    yield _lead(clips)
    yield "</header>"
    yield from (f'<p class="note">{_text(n)}</p>' for n in notes[:MOST_PROBLEMS])
    yield from _problems(problems)
    yield from _funnel(clips, settings)
    yield from _histograms(clips, settings)
    yield "<h2>Clips to look at</h2><section>"
    for kind, _ in kinds:
        checked = " checked" if kind == first else ""
        yield f'<input class="pick" type="radio" name="kind" id="pick-{kind}"{checked}>'
    labels = (f'<label for="pick-{k}">{_text(k)} <span>{len(mine):,}</span></label>' for k, mine in kinds)
    yield f'<div class="chips">{"".join(labels)}</div>'
    for kind, mine in kinds:
        yield from _cards(kind, mine, settings, pictures)
    yield "</section>"
    yield from _settings(settings)
    yield "</body></html>"


def _lead(clips: Sequence[Clip]) -> str:
    passed = [c for c in clips if c.passed]
    episodes = len({c.episode for c in clips})
    minutes = sum(c.duration_s for c in passed) / 60
    return (
        f'<p class="lead"><b>{len(passed):,}</b> of {len(clips):,} clips passed: {minutes:,.1f} minutes to label, '
        f"from {episodes:,} video{'s' * (episodes != 1)}.</p>"
    )


def _problems(problems: Mapping[str, str]) -> Iterator[str]:
    if not problems:
        return
    yield f"<details open><summary>{len(problems):,} videos could not be read</summary>"
    yield from (f'<p class="note">{_text(v)}: {_text(said)}</p>' for v, said in list(problems.items())[:MOST_PROBLEMS])
    if len(problems) > MOST_PROBLEMS:
        yield f'<p class="soft">and {len(problems) - MOST_PROBLEMS:,} more; see screen.parts/ledger.parquet</p>'
    yield "</details>"


def _funnel(clips: Sequence[Clip], settings: ScreenSettings) -> Iterator[str]:
    total = max(len(clips), 1)
    fell = {kind: len(mine) for kind, mine in _by_kind(clips)}
    filters = {f.name: f for f in FILTERS}
    yield '<h2>What stopped them</h2><table class="funnel"><tr><th>filter</th><th>lets pass</th>'
    yield "<th>fell</th><th>left</th><th></th></tr>"
    left = len(clips)
    for reason in REASONS:
        if reason == UNREADABLE and not fell.get(reason):
            continue
        here = fell.get(reason, 0)
        left -= here
        rule = _rule(filters[reason], settings) if reason in filters else _other_rule(reason, settings)
        if reason == "voice" and not settings.voices:
            rule = "left out by the settings"
        yield f"<tr><td>{_text(TITLES[reason])}</td><td class=soft>{_text(rule)}</td><td class=number>{here:,}</td>"
        yield f'<td class="number">{left:,}</td><td class="wide"><div class="track">'
        yield f'<div class="left" style="width:{100 * left / total:.2f}%"></div>'
        yield f'<div class="fell" style="width:{100 * here / total:.2f}%"></div></div></td></tr>'
    share = 100 * left / total
    yield f'<tr class="end"><td>passed</td><td></td><td></td><td class="number">{left:,}</td><td class="wide">'
    yield f'<div class="track"><div class="left" style="width:{share:.2f}%"></div></div></td></tr></table>'


def _rule(f: Filter, settings: ScreenSettings) -> str:
    bounds = [(word, bound) for word, bound in (("at least", f.low), ("at most", f.high)) if bound]
    return ", ".join(f"{word} {f.show(getattr(settings, bound))}" for word, bound in bounds)


def _other_rule(reason: str, settings: ScreenSettings) -> str:
    if reason == DUPLICATE:
        return "the first of its kind" if settings.duplicates else "left out by the settings"
    return ""


def _histograms(clips: Sequence[Clip], settings: ScreenSettings) -> Iterator[str]:
    yield '<h2>What was measured</h2><div class="histograms">'
    for f in FILTERS:
        values = [v * f.scale for c in clips if (v := getattr(c, f.measure)) is not None]
        if not values:
            continue
        low, high = ENDS.get(f.measure, (0.0, 100.0))
        if not high > low:
            high = max(1.25 * getattr(settings, f.high), low + 1.0)
        bounds = ((f.low, True), (f.high, False))
        limits = [(getattr(settings, b) * f.scale, is_low, f.show(getattr(settings, b))) for b, is_low in bounds if b]
        unit = f.unit.strip()
        yield f"<figure><figcaption>{_text(f.title)}<span class=soft>{len(values):,}</span></figcaption>"
        yield draw(values, limits, (low, high), unit) + "</figure>"
    yield '</div><p class="soft">Red bars lie beyond a threshold (dashed). What a clip that fell earlier was not '
    yield "measured for is not counted; at the ends of an axis stands all that lies beyond it.</p>"


def _cards(kind: str, clips: Sequence[Clip], settings: ScreenSettings, pictures: Mapping[str, bytes]) -> Iterator[str]:
    shown = _sample(clips)
    title = PASSED if kind == PASSED else f"fell: {TITLES[kind]}"
    count = f"all {len(clips):,}" if len(shown) == len(clips) else f"{len(shown)} of {len(clips):,}, drawn at random"
    yield f'<div class="sample sample-{kind}"><p class="soft">{_text(title)} – {count}</p><div class="cards">'
    for clip in shown:
        yield from _card(clip, pictures.get(clip.id))
    yield "</div></div>"


def _card(clip: Clip, jpeg: bytes | None) -> Iterator[str]:
    yield '<article class="card"><div class="picture">'
    if jpeg:
        yield f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode("ascii")}">'
    else:
        yield "no picture"
    length = f"{clip.duration_s:.2f} s"
    failed = MEASURE_OF.get(clip.reason or "")
    mark = ' class="failed"' if failed == "duration_s" else ""
    yield f'</div><div class="body"><div class="id">{_text(clip.id)}</div><div class="soft">'
    yield f"{_clock(clip.start_s)} – {_clock(clip.end_s)} · <span{mark}>{length}</span></div>"
    if clip.text:
        yield f'<p class="words">{_text(clip.text[:300])}</p>'
    yield "<dl>"
    for name, measure, form, scale in NUMBERS:
        value = getattr(clip, measure)
        mark = ' class="failed"' if failed == measure else ""
        said = "–" if value is None else form.format(value * scale)
        if measure == "yaw_deg" and clip.pitch_deg is not None:
            said += f", {clip.pitch_deg:.0f}°"
        yield f"<dt{mark}>{name}</dt><dd{mark}>{said}</dd>"
    yield "</dl>"
    if clip.detail:
        yield f'<p class="why">{_text(clip.detail)}</p>'
    yield "</div></article>"


def _settings(settings: ScreenSettings) -> Iterator[str]:
    yield '<details><summary>Settings</summary><table class="settings">'
    for f in fields(settings):
        value = getattr(settings, f.name)
        said = str(value).lower() if isinstance(value, bool) else f"{value:.4g}" if isinstance(value, float) else value
        yield f"<tr><td>{f.name}</td><td>{_text(str(said))}</td></tr>"
    yield "</table></details>"


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(time_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{seconds:04.1f}"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
