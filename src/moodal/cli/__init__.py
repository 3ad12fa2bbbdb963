"""The commands: parse, call one function, print. Results go to stdout, progress and warnings to stderr."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Annotated, cast

import typer

from moodal import __version__
from moodal.cli import use  # noqa: F401 (each adds its commands, in the order of --help)

# isort: split
from moodal.cli import data, recipe, studies  # noqa: F401
from moodal.cli.app import app
from moodal.types import InputError, WorkError

# click's, from which all complaints about usage inherit; newer typers carry a click of their own
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
INTERRUPTED = 130


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Reads emotion from text, voice and face together, and says how far each modality can be believed."""
    if version:
        print(f"moodal {__version__}")
        raise typer.Exit


def main() -> None:
    """The command line's entry: errors become one sentence and an exit code (2 input, 1 the work failed)."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    argv = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(argv) < len(sys.argv) - 1
    try:
        code = app(argv or ["--help"], standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer has caught it
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except UsageError as e:
        _fail(e.format_message().rstrip("."), 2, debug)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted; the same command continues where it stopped", INTERRUPTED, debug)
    except InputError as e:
        _fail(str(e), 2, debug)
    except WorkError as e:
        _fail(str(e), 1, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a reader like head has gone; that is no error
        sys.exit(0)
    except (FileExistsError, NotADirectoryError) as e:
        _fail(f"{e.filename} is a file, but a folder is needed there", 2, debug)
    except OSError as e:  # no permission, a folder where a file should be
        _fail(f"{e.filename}: {e.strerror}" if e.filename and e.strerror else str(e), 2, debug)


def _fail(message: str, code: int, debug: bool) -> None:
    """One line on stderr, whatever the message holds; the traceback before it only with --debug."""
    if debug:
        traceback.print_exc()
    line = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))  # file names may hold anything
    print(f"moodal: {line}", file=sys.stderr)
    sys.exit(code)
