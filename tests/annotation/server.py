"""The real server in a process of its own, as the command runs it, to be asked over HTTP and to be killed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from moodal.annotation.settings import AnnotationSettings

CODE = """
import json, sys
from pathlib import Path
from moodal.annotation.serve import AnnotateOptions, serve
from moodal.annotation.settings import AnnotationSettings

folder, port, database, settings = sys.argv[1:]
options = AnnotateOptions(
    port=int(port), database=database or None, settings=AnnotationSettings(**json.loads(settings)), workers=1
)
serve(Path(folder), options, on_ready=lambda address, _: print(address, flush=True))
print("ended", flush=True)
"""


def start(folder: Path, settings: AnnotationSettings, *, port: int = 0, database: str = "") -> tuple:
    """The process and its address, once it answers."""
    command = [sys.executable, "-c", CODE, str(folder), str(port), database, json.dumps(asdict(settings))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    address = process.stdout.readline().strip()
    if not address:
        raise AssertionError(process.communicate()[1])
    return process, address


@contextmanager
def running(folder: Path, settings: AnnotationSettings) -> Iterator[str]:
    """The address of a server that ends with the block."""
    process, address = start(folder, settings)
    try:
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)
