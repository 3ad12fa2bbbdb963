"""Subtitles inside a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from moodal.media import MediaError
from moodal.media.container import opened, prepare, refuse, zero_of
from moodal.media.packets import Damage, decoded, packets


@dataclass(frozen=True, slots=True)
class Subtitle:
    """One caption as the decoder gives it: ``text`` has the markup of SubStation Alpha, whatever it was before."""

    start_s: float
    end_s: float
    name: str
    text: str


def read_subtitles(path: Path, index: int) -> Iterator[Subtitle]:
    """The captions in stream ``index`` of ``path``, in the order of the file. Pictures of text are left out."""
    damage = Damage(path)
    try:
        with opened(path) as container:
            stream: Any = next((s for s in container.streams.subtitles if s.index == index), None)
            if stream is None:
                raise MediaError(f"{path}: there is no subtitle stream {index}")
            refuse(path, stream)
            prepare(container, stream, 1)
            zero = zero_of(container)
            for packet in packets(container, stream, damage):
                if packet and packet.size and packet.pts is not None:
                    yield from _captions(packet, zero, damage)
    finally:
        damage.log()


def _captions(packet: Any, zero: Fraction, damage: Damage) -> Iterator[Subtitle]:
    start_s = float(packet.pts * packet.time_base - zero)
    end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base - zero)
    for part in decoded(packet.stream, packet, damage):
        # ReadOrder, Layer, Style, Name, three margins, Effect, Text
        fields = getattr(part, "ass", b"").decode("utf-8", "replace").split(",", 8)
        if len(fields) == 9 and start_s < end_s:
            yield Subtitle(max(0.0, start_s), end_s, fields[3], fields[8])
        else:
            damage.add("a caption that cannot be read")
