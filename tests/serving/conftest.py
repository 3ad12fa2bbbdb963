"""Small videos, as the tests of ``media`` make them."""

from tests.media.conftest import make_video  # noqa: F401
