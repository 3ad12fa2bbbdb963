"""The labelling web app: the same clip as sound, as silent pictures, as text and whole, to different eyes and ears."""

from importlib.util import find_spec

from moodal.types import InputError

NEEDED = ("alembic", "argon2", "fastapi", "jinja2", "python_multipart", "sqlalchemy", "uvicorn")

if missing := [name for name in NEEDED if find_spec(name) is None]:
    raise InputError(f"labelling needs {', '.join(missing)}; install it: pip install 'moodal[annotate]'")
