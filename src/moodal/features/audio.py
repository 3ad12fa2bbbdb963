"""The paper's 33 numbers per audio frame: zero-crossing rate (1), MFCC (20), constant-Q chroma (12), in that order.

librosa defines them and the tests hold us to it. Its ``chroma_cqt`` builds 7 x 36 filters anew for every clip, which is
most of its time; here they are built once per tuning. A filter one octave lower, at half the sample rate, is the same
filter, so 36 of them serve all seven octaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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

# Which mel scale: the field's published features use HTK's formula, librosa by default Slaney's.
PRESETS: dict[str, dict[str, bool]] = {"field": {"htk": True}, "librosa": {"htk": False}}

Array = npt.NDArray[Any]


def read_audio(path: Path) -> Array:
    """Mono waveform of a sound file, float32 in [-1, 1], shape (samples,), at ``SAMPLE_RATE_HZ``."""
    import librosa
    import soundfile

    if not path.is_file():
        raise InputError(f"{path} does not exist, or is no file")
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (samples, channels)
    except soundfile.LibsndfileError as e:
        raise InputError(f"{path} could not be read as sound: {e}; wav, flac, ogg and mp3 can be") from e
    if not len(channels):
        raise InputError(f"{path} holds no sound: it has 0 samples")
    mono = channels.mean(1)
    resampled: Array = librosa.resample(mono, orig_sr=rate, target_sr=SAMPLE_RATE_HZ, res_type="soxr_hq")
    return resampled


def audio_features(y: Array, preset: str = "field") -> Array:
    """The features of one clip. y: (samples,) at ``SAMPLE_RATE_HZ`` -> (1 + samples // HOP, 33) float32."""
    if preset not in PRESETS:
        raise unknown("audio preset", preset, PRESETS)
    y = _checked(y)
    magnitude = np.abs(_spectrum(y))  # (T, FRAME // 2 + 1)
    with _one_blas_thread():
        parts = [
            _zero_crossing_rate(y),
            _mfcc(magnitude, htk=PRESETS[preset]["htk"]),
            _chroma(y, _tuning(magnitude)),
        ]
    return np.concatenate(parts, axis=1)


def spec(preset: str = "field") -> dict[str, Any]:
    """What a data set records about these features: the fields of its ``FeatureSpec``."""
    if preset not in PRESETS:
        raise unknown("audio preset", preset, PRESETS)
    return {
        "name": "zcr-mfcc-chroma",
        "version": "1",
        "modality": "audio",
        "dim": DIM,
        "hop_s": HOP / SAMPLE_RATE_HZ,
        "licence": "Apache-2.0",
        "columns": COLUMNS,
        "settings": {"preset": preset, "sample_rate_hz": SAMPLE_RATE_HZ, "hop": HOP, **PRESETS[preset]},
    }


def _checked(y: Array) -> Array:
    y = np.asarray(y)
    if y.ndim != 1 or y.dtype.kind != "f":
        raise InputError(f"a waveform is one row of floats, got shape {y.shape} of {y.dtype}")
    if not len(y):
        raise InputError("the waveform is empty; there is nothing to take features from")
    if not np.isfinite(y).all():
        raise InputError("the waveform holds NaN or inf; decode the sound again")
    return y.astype(np.float32)


def _frames(y: Array, size: int, hop: int) -> Array:
    """(1 + samples // hop, size) read-only view: frame t is centred on sample t * hop."""
    padded = np.pad(y, size // 2)
    view: Array = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    return view


def _spectrum(y: Array) -> Array:
    """(T, FRAME // 2 + 1) complex64 short-time Fourier transform under a Hann window.

    librosa's own, to the last bit: one clip in sixty has two tunings with nearly the same votes, and another order of
    rounding picks the other one, which moves its chroma by a lot.
    """
    import librosa

    spectrum: Array = librosa.stft(np.pad(y, FRAME // 2), n_fft=FRAME, hop_length=HOP, center=False)
    return spectrum.T


def _zero_crossing_rate(y: Array) -> Array:
    """(T, 1) share of a frame's samples whose sign differs from the sample before. Tiny values count as positive."""
    padded = np.pad(y, FRAME // 2, mode="edge")
    negative = padded < -1e-10
    crossings = np.concatenate([[0], np.cumsum(negative[1:] != negative[:-1])])  # up to and including each sample
    first = np.arange(1 + len(y) // HOP) * HOP
    rate: Array = (crossings[first + FRAME - 1] - crossings[first]) / FRAME
    return rate[:, None].astype(np.float32)


def _mfcc(magnitude: Array, *, htk: bool) -> Array:
    """(T, 20) cosine transform of the mel spectrum in decibels, at most 80 dB below the clip's loudest band."""
    import librosa
    import scipy.fft

    mel = (magnitude**2) @ _mel_filters(htk).T  # (T, 128)
    cepstrum: Array = scipy.fft.dct(librosa.power_to_db(mel, top_db=80.0), type=2, norm="ortho", axis=1)
    return cepstrum[:, :NUM_MFCC]


@lru_cache(2)
def _mel_filters(htk: bool) -> Array:
    """(128, FRAME // 2 + 1)"""
    from librosa.filters import mel

    filters: Array = mel(sr=SAMPLE_RATE_HZ, n_fft=FRAME, htk=htk)
    return filters


def _tuning(magnitude: Array) -> float:
    """How far the clip's pitches lie from the 36-step scale, in steps, from -0.5 to 0.49 by hundredths.

    magnitude: (T, FRAME // 2 + 1). Peaks between 150 and 4000 Hz, refined by a parabola; the louder half of them votes.
    """
    low, high = (int(np.ceil(f * FRAME / SAMPLE_RATE_HZ)) for f in (150, 4000))
    loud = np.where(magnitude > 0.1 * magnitude.max(1, keepdims=True), magnitude, 0)[:, low - 1 : high + 1]
    frame, step = np.nonzero((loud[:, 1:-1] > loud[:, :-2]) & (loud[:, 1:-1] >= loud[:, 2:]))
    if not len(frame):
        return 0.0
    bin_ = low + step
    before, peak, after = (magnitude[frame, bin_ + k] for k in (-1, 0, 1))
    slope, curve = (after - before) / 2, after + before - 2 * peak
    shift = np.where(np.abs(slope) < np.abs(curve), -slope / np.where(curve == 0, 1, curve), 0)  # in bins
    height = peak + slope * shift / 2
    pitch_hz = ((bin_ + shift) * (SAMPLE_RATE_HZ / FRAME)).astype(np.float32)[height >= np.median(height)]
    off = np.mod(BINS_PER_OCTAVE * np.log2(pitch_hz / 27.5), 1.0)
    off[off >= 0.5] -= 1.0
    votes, edges = np.histogram(off, np.linspace(-0.5, 0.5, 101))
    return float(edges[np.argmax(votes)])


def _chroma(y: Array, tuning: float) -> Array:
    """(T, 12) constant-Q energy per pitch class, all octaves added, the strongest class of a frame at 1."""
    import librosa
    import scipy.fft

    size, first_bin, bank = _octave_filters(round(tuning, 4))
    num_frames = 1 + len(y) // HOP
    total = np.zeros((num_frames, BINS_PER_OCTAVE), np.float32)
    for octave in range(NUM_OCTAVES):  # from the top down: halve the rate, keep the filters
        if octave:
            y = librosa.resample(y, orig_sr=2, target_sr=1, res_type="soxr_hq", scale=True)
        spectrum = scipy.fft.rfft(_frames(y, size, HOP >> octave)[:num_frames], axis=1)
        total += np.abs(spectrum[:, first_bin : first_bin + len(bank)] @ bank)
    energy = total @ _notes()
    strongest = energy.max(1, keepdims=True)
    strongest[strongest < np.finfo(np.float32).tiny] = 1  # silence stays 0
    chroma: Array = energy / strongest
    return chroma


@lru_cache(128)  # tunings are hundredths from -0.5: at most 100 of them
def _octave_filters(tuning: float) -> tuple[int, int, Array]:
    """The top octave's filters in the frequency domain: frame size, first bin they touch, (bins, 36) complex64."""
    import librosa
    import scipy.fft
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
    return size, first, np.ascontiguousarray(kept[:, first : last + 1].T)


def _bandwidth() -> Array:
    """(36,) a filter's width relative to its frequency: that of two steps of the scale."""
    ratio = 2 ** (2 / BINS_PER_OCTAVE)
    return np.full(BINS_PER_OCTAVE, (ratio - 1) / (ratio + 1))


@lru_cache(1)
def _notes() -> Array:
    """(36, 12) which of the octave's 36 bins belong to which pitch class."""
    from librosa.filters import cq_to_chroma

    notes: Array = cq_to_chroma(BINS_PER_OCTAVE, bins_per_octave=BINS_PER_OCTAVE, n_chroma=12).T
    return np.ascontiguousarray(notes)


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """These products are small: more threads make them slower, and clips run side by side anyway."""
    with _blas().limit(limits=1, user_api="blas"):
        yield


@lru_cache(1)
def _blas() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()
