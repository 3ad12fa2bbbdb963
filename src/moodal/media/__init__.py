"""Video and sound files, and the words beside them: what a file holds, as arrays with their times."""

from moodal.types import WorkError


class MediaError(WorkError):
    """A media file could not be read: one sentence that names the file and what of it is broken."""
