"""``python -m moodal`` is the command ``moodal``."""

from moodal.cli import main

if __name__ == "__main__":
    main()
