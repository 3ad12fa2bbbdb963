"""The paper's 33 numbers per audio frame: zero-crossing rate (1), MFCC (20), constant-Q chroma (12), in that order.

librosa defines them and the tests hold us to it. Its ``chroma_cqt`` builds 7 x 36 filters anew for every clip, which is
most of its time; here they are built once per tuning. A filter one octave lower, at half the sample rate, is the same
filter, so 36 of them serve all seven octaves.

Frames are worked through in blocks, so what grows with the clip is small: the waveform and its six halvings (8 bytes
per sample) and about 2 kB per frame of mel bands and pitches. An hour takes about one gigabyte. No product here is
dense, so none starts threads: clips may run side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moodal.features.extractor import AudioExtractor, Features
from moodal.types import InputError, unknown

SAMPLE_RATE_HZ = 22_050
HOP = 512  # samples from frame to frame: 43.07 frames per second
FRAME = 2048
NUM_MFCC = 20
NUM_OCTAVES = 7
BINS_PER_OCTAVE = 36
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
COLUMNS = ("zcr", *(f"mfcc_{i}" for i in range(NUM_MFCC)), *(f"chroma_{note}" for note in NOTES))
DIM = len(COLUMNS)  # 33
BLOCK = 96  # frames worked on at a time: what they need fits the processor's cache
RATES_HZ = (1_000, 768_000)  # from below telephones to above studios; beyond lies a mistake that could fill the memory
LOUDEST = 2.0**31  # waveforms of whole numbers reach this; much above it, squares overflow
# Single precision moves a frame's energy by up to 6e-8 of its norm; below this share of it the last digits would show.
ROUNDING = 0.0003

# Which mel scale: the field's published features use HTK's formula, librosa by default Slaney's.
PRESETS: dict[str, dict[str, bool]] = {"field": {"htk": True}, "librosa": {"htk": False}}
NAMES = {"field": "audio33", "librosa": "audio33-librosa"}

Array = npt.NDArray[Any]


class Audio33(AudioExtractor):
    """The 33 numbers, 43.07 times a second. Frame t is centred on sample t * HOP."""

    version = "2"
    modality = "audio"
    dim = DIM
    hop_s = HOP / SAMPLE_RATE_HZ
    licence = "Apache-2.0"
    commercial = True
    columns = COLUMNS
    rate_hz = SAMPLE_RATE_HZ

    def __init__(self, preset: str = "field") -> None:
        if preset not in PRESETS:
            raise unknown("audio preset", preset, PRESETS)
        self.name = NAMES[preset]
        self.preset = preset
        self.settings: Mapping[str, Any] = {
            "preset": preset,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "hop": HOP,
            **PRESETS[preset],
        }

    def __call__(self, samples: Array, rate_hz: int) -> Features:
        """samples: (n,) float, mono. No sample at all is a missing modality; silence is not."""
        y = resample(samples, rate_hz, SAMPLE_RATE_HZ)
        if not len(y):
            return Features.missing(DIM, "there is no sound")
        values = audio_features(y, self.preset)
        times_s = np.arange(len(values), dtype=np.float64) * HOP / SAMPLE_RATE_HZ
        return Features(values, times_s, "" if y.any() else "the sound is silent")


def read_audio(path: Path) -> Array:
    """Mono waveform of a sound file, float32 in [-1, 1], shape (samples,), at ``SAMPLE_RATE_HZ``."""
    import soundfile

    if not path.is_file():
        raise InputError(f"{path} does not exist, or is no file")
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (samples, channels)
    except soundfile.LibsndfileError as e:
        raise InputError(f"{path} could not be read as sound: {e}; wav, flac, ogg and mp3 can be") from e
    if not len(channels):
        raise InputError(f"{path} holds no sound: it has 0 samples")
    return resample(channels.mean(1), rate, SAMPLE_RATE_HZ)


def resample(samples: Array, rate_hz: int, wanted_hz: int) -> Array:
    """A checked waveform, float32, at ``wanted_hz``; the filter is that of ``librosa.load``."""
    import librosa

    y = _checked(samples)
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise InputError(f"a sample rate lies between {RATES_HZ[0]} and {RATES_HZ[1]} Hz, got {rate_hz}")
    if rate_hz == wanted_hz or not len(y):
        return y
    resampled: Array = librosa.resample(y, orig_sr=rate_hz, target_sr=wanted_hz, res_type="soxr_hq")
    return resampled


def audio_features(y: Array, preset: str = "field") -> Array:
    """The features of one clip. y: (samples,) at ``SAMPLE_RATE_HZ`` -> (1 + samples // HOP, 33) float32."""
    if preset not in PRESETS:
        raise unknown("audio preset", preset, PRESETS)
    y = _checked(y)
    if not len(y):
        raise InputError("the waveform is empty; there is nothing to take features from")
    mel, pitches_hz, heights = _spectral(y, **PRESETS[preset])
    parts = [_zero_crossing_rate(y), _mfcc(mel), _chroma(y, _tuning(pitches_hz, heights))]
    return np.concatenate(parts, axis=1)


def spec(preset: str = "field") -> dict[str, Any]:
    """What a data set records about these features: the fields of its ``FeatureSpec``."""
    return Audio33(preset).identity()


def _checked(y: Array) -> Array:
    y = np.asarray(y)
    if y.ndim != 1 or y.dtype.kind != "f":
        raise InputError(f"a waveform is one row of floats, got shape {y.shape} of {y.dtype}")
    low, high = (float(y.min()), float(y.max())) if len(y) else (0.0, 0.0)  # NaN and inf show in these two
    if not np.isfinite([low, high]).all():
        raise InputError("the waveform holds NaN or inf; decode the sound again")
    if max(-low, high) > LOUDEST:
        raise InputError(f"the waveform reaches {max(-low, high):.3g}; a waveform lies in [-1, 1]")
    return y.astype(np.float32, copy=False)


def _blocks(num_frames: int) -> Iterator[tuple[int, int]]:
    """First frame and the one after the last, ``BLOCK`` at a time."""
    for start in range(0, num_frames, BLOCK):
        yield start, min(start + BLOCK, num_frames)


def _windows(y: Array, size: int, hop: int, start: int, stop: int, *, mode: Any = "constant") -> Array:
    """(stop - start, size) read-only view of frames: frame t is centred on sample t * hop, the ends are padded."""
    first, end = start * hop - size // 2, (stop - 1) * hop - size // 2 + size
    inside = y[max(first, 0) : max(end, 0)]
    lacking = max(-first, 0), end - max(first, 0) - len(inside)
    padded = np.pad(inside, lacking, mode=mode) if any(lacking) else inside
    view: Array = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    return view


def _spectral(y: Array, *, htk: bool) -> tuple[Array, Array, Array]:
    """What MFCC and tuning take from one short-time Fourier transform: mel power (128, T); pitches and their heights.

    The transform is computed in double precision and rounded, as librosa's is: one clip in sixty has two tunings with
    nearly the same votes, and another last bit would pick the other one, which moves its chroma by a lot.
    """
    import scipy.fft
    import scipy.signal

    window = scipy.signal.get_window("hann", FRAME)
    mel, pitches = [], []
    for start, stop in _blocks(1 + len(y) // HOP):
        spectrum = scipy.fft.rfft(_windows(y, FRAME, HOP, start, stop) * window, axis=1, overwrite_x=True)
        magnitude = np.abs(spectrum.astype(np.complex64))  # (frames, FRAME // 2 + 1)
        mel.append(_mel_filters(htk) @ (magnitude**2).T)
        pitches.append(_pitches(magnitude))
    pitches_hz, heights = (np.concatenate(x) for x in zip(*pitches, strict=True))
    return np.concatenate(mel, axis=1), pitches_hz, heights


def _zero_crossing_rate(y: Array) -> Array:
    """(T, 1) share of a frame's samples whose sign differs from the sample before. Tiny values count as positive."""
    parts = []
    for start, stop in _blocks(1 + len(y) // HOP):
        negative = _windows(y, FRAME, HOP, start, stop, mode="edge") < -1e-10
        parts.append(np.count_nonzero(negative[:, 1:] != negative[:, :-1], axis=1))
    rate: Array = np.concatenate(parts) / FRAME
    return rate[:, None].astype(np.float32)


def _mfcc(mel: Array) -> Array:
    """(T, 20) cosine transform of the mel spectrum in decibels, at most 80 dB below the clip's loudest band."""
    import librosa
    import scipy.fft

    cepstrum: Array = scipy.fft.dct(librosa.power_to_db(mel, top_db=80.0), type=2, norm="ortho", axis=0)
    return cepstrum[:NUM_MFCC].T


@lru_cache(2)
def _mel_filters(htk: bool) -> Any:
    """(128, FRAME // 2 + 1) sparse"""
    import scipy.sparse
    from librosa.filters import mel

    return scipy.sparse.csr_array(mel(sr=SAMPLE_RATE_HZ, n_fft=FRAME, htk=htk))


def _pitches(magnitude: Array) -> tuple[Array, Array]:
    """Pitch (Hz) and height of every spectral peak from 150 to 4000 Hz, refined by a parabola.

    magnitude: (frames, FRAME // 2 + 1). A peak counts above a tenth of its frame's maximum.
    """
    low, high = (int(np.ceil(f * FRAME / SAMPLE_RATE_HZ)) for f in (150, 4000))
    loud = np.where(magnitude > 0.1 * magnitude.max(1, keepdims=True), magnitude, 0)[:, low - 1 : high + 1]
    frame, step = np.nonzero((loud[:, 1:-1] > loud[:, :-2]) & (loud[:, 1:-1] >= loud[:, 2:]))
    bin_ = low + step
    before, peak, after = (magnitude[frame, bin_ + k] for k in (-1, 0, 1))
    slope, curve = (after - before) / 2, after + before - 2 * peak
    shift = np.where(np.abs(slope) < np.abs(curve), -slope / np.where(curve == 0, 1, curve), 0)  # in bins
    pitches_hz = ((bin_ + shift) * (SAMPLE_RATE_HZ / FRAME)).astype(np.float32)
    return pitches_hz, peak + slope * shift / 2


def _tuning(pitches_hz: Array, heights: Array) -> float:
    """How far the clip's pitches lie from the 36-step scale, in steps, from -0.5 to 0.49 by hundredths.

    The louder half of the pitches votes.
    """
    if not len(pitches_hz):
        return 0.0
    off = np.mod(BINS_PER_OCTAVE * np.log2(pitches_hz[heights >= np.median(heights)] / 27.5), 1.0)
    off[off >= 0.5] -= 1.0
    votes, edges = np.histogram(off, np.linspace(-0.5, 0.5, 101))
    return float(edges[np.argmax(votes)])


def _chroma(y: Array, tuning: float) -> Array:
    """(T, 12) constant-Q energy per pitch class, all octaves added, the strongest class of a frame at 1."""
    octaves, bank = _octaves(y), _octave_filters(round(tuning, 4))
    parts = [_block_chroma(octaves, bank, *block) for block in _blocks(1 + len(y) // HOP)]
    return np.concatenate(parts, axis=1).T


def _octaves(y: Array) -> list[Array]:
    """The waveform at the full rate, at half of it, and so on: the top octave's filters see one octave less in each."""
    import librosa

    octaves = [y]
    for _ in range(NUM_OCTAVES - 1):
        octaves.append(librosa.resample(octaves[-1], orig_sr=2, target_sr=1, res_type="soxr_hq", scale=True))
    return octaves


class _Bank(NamedTuple):
    """The top octave's 36 filters in the frequency domain: sparse (36, bins), zero below and above these bins."""

    size: int  # samples of a frame
    first_bin: int
    filters: Any


def _block_chroma(octaves: Sequence[Array], bank: _Bank, start: int, stop: int) -> Array:
    """(12, frames). Single precision, and double for frames so nearly silent in all notes that its rounding would show.

    A constant is such a case: its only notes are rounding errors, ours must be librosa's, and 1 is the strongest.
    """
    frames = [_windows(x, bank.size, HOP >> i, start, stop) for i, x in enumerate(octaves)]  # (frames, size) each
    energy = _energy(frames, bank)
    noise = ROUNDING * sum(np.sqrt(np.einsum("ts,ts->t", f, f)) for f in frames)
    doubtful = noise > energy.max(0)
    if doubtful.any():
        energy[:, doubtful] = _energy([f[doubtful].astype(np.float64) for f in frames], bank)
    strongest = energy.max(0)
    strongest[strongest < np.finfo(np.float32).tiny] = 1  # silence stays 0
    chroma: Array = energy / strongest
    return chroma


def _energy(frames: Sequence[Array], bank: _Bank) -> Array:
    """(12, T) float32 energy per pitch class. frames: (T, size) of each octave."""
    import scipy.fft

    total = np.zeros((BINS_PER_OCTAVE, len(frames[0])), np.float32)
    for octave in frames:
        spectrum = scipy.fft.rfft(octave, axis=1)[:, bank.first_bin : bank.first_bin + bank.filters.shape[1]]
        total += np.abs(bank.filters @ spectrum.T.astype(np.complex64))
    energy: Array = _notes() @ total
    return energy


@lru_cache(128)  # tunings are hundredths from -0.5: at most 100 of them
def _octave_filters(tuning: float) -> _Bank:
    import librosa
    import scipy.fft
    import scipy.sparse
    from librosa.filters import wavelet

    lowest_hz = librosa.note_to_hz("C1") * 2 ** (NUM_OCTAVES - 1 + tuning / BINS_PER_OCTAVE)
    freqs_hz = lowest_hz * 2 ** (np.arange(BINS_PER_OCTAVE) / BINS_PER_OCTAVE)
    filters, lengths = wavelet(freqs=freqs_hz, sr=SAMPLE_RATE_HZ, window="hann", alpha=_bandwidth())
    size = filters.shape[1]
    response = scipy.fft.fft(filters * (lengths[:, None] / size), axis=1)[:, : size // 2 + 1]
    kept = librosa.util.sparsify_rows(response, quantile=0.01, dtype=np.complex64).toarray()
    kept /= np.sqrt(lengths)[:, None]
    touched = np.flatnonzero(np.abs(kept).max(0))
    first, last = int(touched[0]), int(touched[-1])
    return _Bank(size, first, scipy.sparse.csr_array(kept[:, first : last + 1]))


def _bandwidth() -> Array:
    """(36,) a filter's width relative to its frequency: that of two steps of the scale."""
    ratio = 2 ** (2 / BINS_PER_OCTAVE)
    return np.full(BINS_PER_OCTAVE, (ratio - 1) / (ratio + 1))


@lru_cache(1)
def _notes() -> Any:
    """(12, 36) sparse: which of the octave's 36 bins belong to which pitch class."""
    import scipy.sparse
    from librosa.filters import cq_to_chroma

    return scipy.sparse.csr_array(cq_to_chroma(BINS_PER_OCTAVE, bins_per_octave=BINS_PER_OCTAVE, n_chroma=12))
