"""Packets of a file and what is decoded of them; what cannot be is counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from moodal.media.container import reason

if TYPE_CHECKING:
    import av.container

log = logging.getLogger(__name__)


class Damage:
    """What could not be decoded: how much, and what was said the first time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first = ""

    def add(self, what: str, count: int = 1) -> None:
        self.count += count
        self.first = self.first or what

    def log(self) -> None:
        if self.count:
            log.warning("%s: %d damaged pieces were left out; the first: %s", self.path, self.count, self.first)


def packets(container: av.container.InputContainer, stream: Any, damage: Damage) -> Iterator[Any]:
    """An empty packet at the end makes the decoder give up what it holds back."""
    try:
        for packet in demuxed(container, stream):
            if packet.is_corrupt:
                damage.add("a packet that is not whole")
            else:
                yield packet
    except av.FFmpegError as e:
        damage.add(reason(e))
        yield None


def demuxed(container: av.container.InputContainer, stream: Any) -> Iterator[Any]:
    while True:
        try:
            yield from container.demux(stream)
            return
        except IndexError:  # a packet of a stream that began after the opening: PyAV stumbles, and has passed it
            continue


def decoded(stream: Any, packet: Any, damage: Damage) -> list[Any]:
    try:
        raws: list[Any] = stream.decode(packet)
    except av.FFmpegError as e:
        if not isinstance(e, av.EOFError):
            damage.add(reason(e))
        return []
    whole = [raw for raw in raws if not getattr(raw, "is_corrupt", False)]  # subtitles do not say
    if len(whole) < len(raws):
        damage.add("a picture or sound that is not whole", len(raws) - len(whole))
    return whole
