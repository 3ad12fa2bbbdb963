"""Runs a program that does not outlive us, however we end: ``python leashed.py PROGRAM ARGUMENT...``.

A process that is killed cannot stop what it started, and Linux's signal at a parent's death reaches one process, not
those that it started in turn. So this stands between: leader of a group with all of them, and holding the end of a pipe
that closes when its caller is gone, it then ends the group. It imports nothing else, to start in a few milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

NOT_STARTED = 126  # as shells say it


def leashed(command: Sequence[str]) -> list[str]:
    """The command to start instead, with ``start_new_session`` and a pipe as its standard input."""
    return [sys.executable, "-I", "-S", __file__, *command]


def _main() -> int:
    threading.Thread(target=_end_with_caller, daemon=True).start()
    try:
        code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603 - an argument list, no shell
    except OSError as e:
        os.write(2, f"{e.strerror}\n".encode())
        return NOT_STARTED
    return code if code >= 0 else 128 - code


def _end_with_caller() -> None:
    os.read(0, 1)  # nobody writes: it returns when the other end is closed
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_main())
