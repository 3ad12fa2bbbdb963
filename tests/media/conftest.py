"""Small videos with known answers, made by the encoder on the spot."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

MILLISECOND = Fraction(1, 1000)
SOUND_HZ = 44_100

VIDEO_CODECS = {".mkv": "libx264", ".mp4": "libx264", ".mov": "libx264", ".ts": "libx264", ".avi": "mpeg4"}
AUDIO_CODECS = {".mkv": "pcm_s16le", ".mov": "pcm_s16le", ".avi": "pcm_s16le", ".mp4": "aac", ".ts": "aac"}

Run = tuple[float, npt.NDArray[np.float32]]  # where it begins, and its samples


def grey(index: int) -> int:
    """The brightness of frame ``index``: far enough apart to survive the encoder."""
    return 16 + 20 * (index % 11)


def pattern(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), grey(index), np.uint8)


def tone(seconds: float, hz: float = 440.0, rate_hz: int = SOUND_HZ) -> npt.NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def every(count: int, rate_hz: float = 25.0) -> list[float]:
    """The times of ``count`` frames at an even rate."""
    return [i / rate_hz for i in range(count)]


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """``make_video("a.mkv", times_s, sound=[(0.0, samples)])``: one grey frame per time, and the sound where it is."""

    def make(
        name: str,
        times_s: Sequence[float] = (),
        *,
        sound: Sequence[Run] = (),
        size: tuple[int, int] = (64, 48),
        draw: Callable[[int, int, int], npt.NDArray[np.uint8]] = pattern,
        gop: int = 12,
        aspect: Fraction | None = None,
        audio_codec: str | None = None,
        options: dict[str, str] | None = None,
        captions: Sequence[tuple[float, float, str]] = (),
    ) -> Path:
        path = tmp_path / name
        with av.open(f"file:{path}", "w", options=options or {}) as out:
            video: Any = None
            audio: Any = None
            text: Any = None
            if times_s:
                video = out.add_stream(VIDEO_CODECS[path.suffix], rate=25)
                video.width, video.height, video.pix_fmt = *size, "yuv420p"
                video.codec_context.time_base = MILLISECOND
                video.codec_context.gop_size = gop
                if aspect:
                    video.codec_context.sample_aspect_ratio = aspect
                if VIDEO_CODECS[path.suffix] == "libx264":
                    video.options = {"preset": "ultrafast", "crf": "12", "threads": "1"}
            if sound:
                audio = out.add_stream(audio_codec or AUDIO_CODECS[path.suffix], rate=SOUND_HZ, layout="mono")
            if captions:
                text = out.add_stream("mov_text" if path.suffix == ".mp4" else "subrip")
                text.codec_context.subtitle_header = b"[Script Info]\n[V4+ Styles]\n[Events]\n"
            out.start_encoding()
            packets = [p for i, t in enumerate(times_s) for p in video.encode(_picture(draw(i, *size), t))]
            packets += video.encode(None) if video else []
            if sound:
                packets += [p for run in sound for f in _pieces(run, audio) for p in audio.encode(f)]
                packets += audio.encode(None)
            packets += [_caption(text, *caption) for caption in captions]
            for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
                out.mux(packet)
        return path

    return make


def _picture(rgb: npt.NDArray[np.uint8], time_s: float) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
    frame.pts, frame.time_base = round(time_s * 1000), MILLISECOND
    return frame


def _pieces(run: Run, stream: Any) -> list[av.AudioFrame]:
    start_s, samples = run
    size, frames = stream.codec_context.frame_size or 1024, []
    for first in range(0, len(samples), size):
        pcm = (samples[None, first : first + size] * 32767).round().astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm, "s16", "mono")
        if stream.codec_context.format.name == "fltp":
            frame = av.AudioFrame.from_ndarray(pcm.astype(np.float32) / 32768, "fltp", "mono")
        frame.rate, frame.time_base = SOUND_HZ, Fraction(1, SOUND_HZ)
        frame.pts = round(start_s * SOUND_HZ) + first
        frames.append(frame)
    return frames


def _caption(stream: Any, start_s: float, end_s: float, words: str) -> av.Packet:
    from av.subtitles.subtitle import SubtitleSet

    tick = stream.time_base
    event = SubtitleSet.create(
        f"0,0,Default,,0,0,0,,{words}".encode(), 0, round((end_s - start_s) / tick), pts=round(start_s / tick)
    )
    packet = stream.codec_context.encode_subtitle(event)
    packet.stream, packet.time_base = stream, tick
    return packet
