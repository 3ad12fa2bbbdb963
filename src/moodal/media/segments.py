"""Several segments of one file in one pass over it.

Speech is cut into many short segments that follow each other closely. Reading each alone opens the file anew and
decodes from the key frame before it; where there is no index (AVI), from the beginning of the file, and all of a film
costs the square of its length. So one pass goes on to the segments that follow, as long as that gives, bit for bit,
what reading each alone gives:

* Without an index a file is always read from its beginning, so one pass is the same by construction.
* Pictures from a key frame on do not depend on what came before it. With an index a pass goes on to the next segment
  when that is near, until it meets damage or a jump of the timestamps: what could depend on those is read alone.
* Sound does depend on it (a codec may draw noise from a generator that runs on). With an index each segment has its
  own seek; sound decodes fast.

A segment is made of what is decoded from ``PREROLL_S`` before it on, wherever the reading began.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from moodal.media import MediaError
from moodal.media.container import EDGE_S, MAX_DURATION_S, existing, zero_of
from moodal.media.packets import Damage, decoded, packets
from moodal.media.pictures import Frame
from moodal.media.seeking import NO_INDEX, PREROLL_S, opened_at
from moodal.media.sound import AudioBlock
from moodal.types import Segment

NEAR_S = 5.0  # to decode up to there costs less than to open the file, seek, and decode from a key frame
MAX_HELD_BYTES = 2**27  # of pieces that wait for their segment's turn

Piece = Frame | AudioBlock
T = TypeVar("T", bound=Piece)
T_co = TypeVar("T_co", bound=Piece, covariant=True)


class Clock(Protocol):
    """When what was decoded begins and ends."""

    def interval(self, raw: Any, /) -> tuple[float, float]: ...


class Maker(Protocol[T_co]):
    """Makes the pieces of one segment of what is decoded."""

    @property
    def is_done(self) -> bool: ...
    def add(self, time_s: float, raw: Any, /) -> Iterator[T_co]: ...
    def finish(self) -> Iterator[T_co]: ...


@dataclass(frozen=True)
class Medium(Generic[T]):
    """Pictures or sound. ``forgets``: decoding from a key frame on is the same whatever was decoded before it."""

    kind: str  # "video" or "audio", as containers call it
    forgets: bool
    clock: Callable[[Any, Fraction], Clock]  # of a stream, and of the moment at which the file begins
    maker: Callable[[Any, Segment, Damage], Maker[T]]  # of a stream
    num_threads: int = 1


class SegmentReader(Generic[T]):
    """Segments of one file, each read as if it were the only one; cheapest in order of their beginnings."""

    def __init__(self, path: Path, segments: Sequence[Segment | None], medium: Medium[T]) -> None:
        """``segments``: None is the whole file."""
        self._path = existing(path)
        self._medium = medium
        self._asked = list(segments)
        self._segments = [_bounded(s) for s in segments]
        self._unread = sorted(range(len(segments)), key=lambda k: (self._segments[k].start_s, k))
        self._pass: _Pass[T] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._pass:
            self._pass.close()
        self._pass = None

    def read(self, number: int) -> Iterator[T]:
        """The pieces of segment ``number`` in order of time. What was left of the segment asked for before is gone."""
        is_new = number in self._unread
        if is_new:
            self._unread.remove(number)
        if self._pass is None or not (is_new and self._pass.serves(number)):
            self.close()
            start_s = self._segments[number].start_s
            self._pass = self._start([number, *(k for k in self._unread if self._segments[k].start_s >= start_s)])
        shared, last_s = self._pass, -1.0
        for piece in shared.take(number):
            last_s = piece.time_s
            yield piece
        reading = shared
        if shared.has_parted_with(number):
            with closing(self._start([number])) as reading:
                yield from (piece for piece in reading.take(number) if piece.time_s > last_s)
        if not reading.num_decoded:
            self._complain(reading, self._asked[number])

    def _start(self, numbers: Sequence[int]) -> _Pass[T]:
        return _Pass(self._path, self._medium, {k: self._segments[k] for k in numbers})

    def _complain(self, reading: _Pass[T], segment: Segment | None) -> None:
        """Nothing came. An error, unless the stream is empty by its own account, or the segment is elsewhere."""
        kind, stream = self._medium.kind, reading.stream
        if reading.damage.count:
            raise MediaError(f"{self._path}: nothing of its {kind} could be decoded: {reading.damage.first}")
        if not segment and stream and (stream.frames or stream.duration):
            raise MediaError(f"{self._path}: nothing of its {kind} is there; the file ends after its header")


def _bounded(segment: Segment | None) -> Segment:
    if segment is None:
        return Segment(0.0, MAX_DURATION_S)
    return Segment(segment.start_s, max(segment.start_s + EDGE_S, min(segment.end_s, MAX_DURATION_S)))


class _Pass(Generic[T]):
    """One reading of a stream, begun for the first of ``segments`` and going on to those that follow."""

    def __init__(self, path: Path, medium: Medium[T], segments: Mapping[int, Segment]) -> None:
        self.damage = Damage(path)
        self.num_decoded = 0
        self._medium, self._segments = medium, segments
        self._first = next(iter(segments))
        self._file = ExitStack()
        container, self.stream, self._index_lies = self._file.enter_context(
            opened_at(path, medium.kind, segments[self._first].start_s, medium.num_threads)
        )
        self._has_index = container.format.name not in NO_INDEX
        self._decoded = self._decode(container)
        self._clock = medium.clock(self.stream, zero_of(container)) if self.stream else None
        self._time_s: float | None = None  # of what was decoded last
        self._to_come = deque(segments if medium.forgets or not self._has_index else [self._first])
        self._makers: dict[int, Maker[T]] = {}  # of those under way
        self._ready: dict[int, deque[T]] = {}  # of those that have begun: what waits to be taken
        self._parted: set[int] = set()
        self._taker: int | None = None
        self._held = 0  # bytes, of all that waits

    def close(self) -> None:
        self._decoded.close()
        self._file.close()
        self.damage.log()

    def serves(self, number: int) -> bool:
        """Whether going on to it gives the same as reading it alone, and costs no more."""
        if number in self._ready or number not in self._to_come:
            return number in self._ready
        ahead_s = self._segments[number].start_s - (self._time_s or 0.0)
        return not self._has_index or self._index_lies or ahead_s <= NEAR_S

    def has_parted_with(self, number: int) -> bool:
        """Whether what follows of it must be read alone."""
        return number in self._parted

    def take(self, number: int) -> Iterator[T]:
        """What this pass has of a segment; what another one had not taken yet is thrown away."""
        if self._taker is not None:
            self._drop(self._taker)
        self._taker = number
        while True:
            while queue := self._ready.get(number):
                piece = queue.popleft()
                self._held -= piece.num_bytes
                yield piece
            if number not in self._makers and number not in self._to_come:
                return
            self._advance()

    def _decode(self, container: Any) -> Generator[Any]:
        if self.stream:
            for packet in packets(container, self.stream, self.damage):
                yield from decoded(self.stream, packet, self.damage)

    def _advance(self) -> None:
        """The next decoded picture, or piece of sound, to all segments that it may belong to."""
        raw = next(self._decoded, None)
        if raw is None or self._clock is None:
            self._end()
            return
        self.num_decoded += 1
        begin_s, end_s = self._clock.interval(raw)
        if not self._is_smooth(begin_s):
            self._part()
        self._time_s = begin_s
        while self._to_come and self._segments[self._to_come[0]].start_s - PREROLL_S <= end_s:
            self._begin(self._to_come.popleft())
        for number, maker in list(self._makers.items()):
            self._keep(number, maker.add(begin_s, raw))
            if maker.is_done:
                self._finish(number)
        while self._held > MAX_HELD_BYTES and self._drop_the_last():
            pass

    def _is_smooth(self, time_s: float) -> bool:
        """Whether what comes now could not be different had the reading begun later."""
        last_s = self._time_s
        return not self.damage.count and (last_s is None or last_s < time_s <= last_s + PREROLL_S)

    def _part(self) -> None:
        """From here on only the first segment is read in this pass: it is alone anyway."""
        if not self._has_index:
            return
        self._to_come = deque(k for k in self._to_come if k == self._first)
        for number in [k for k in self._makers if k != self._first]:
            del self._makers[number]
            self._parted.add(number)

    def _begin(self, number: int) -> None:
        self._makers[number] = self._medium.maker(self.stream, self._segments[number], self.damage)
        self._ready[number] = deque()

    def _keep(self, number: int, pieces: Iterator[T]) -> None:
        for piece in pieces:
            self._ready[number].append(piece)
            self._held += piece.num_bytes

    def _finish(self, number: int) -> None:
        self._keep(number, self._makers.pop(number).finish())

    def _end(self) -> None:
        """The file is over. Segments after its end are empty; those that would seek there find that out themselves."""
        if self.damage.count:
            self._part()
        for number in list(self._makers):
            self._finish(number)
        for number in self._to_come:
            if number == self._first or not self._has_index:
                self._ready[number] = deque()
        self._to_come.clear()

    def _drop(self, number: int) -> None:
        self._makers.pop(number, None)
        self._parted.discard(number)
        self._held -= sum(piece.num_bytes for piece in self._ready.pop(number, ()))

    def _drop_the_last(self) -> bool:
        """Too much waits: the segment whose turn is the furthest away is read later, by another pass."""
        number = max(
            (k for k in self._ready if k != self._taker), key=lambda k: (self._segments[k].start_s, k), default=None
        )
        if number is not None:
            self._drop(number)
            self._to_come.clear()
        return number is not None
