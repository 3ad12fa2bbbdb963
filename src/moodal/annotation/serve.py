"""The one thing that ``moodal annotate DIR`` does: cut what is to be labelled, and show it to those who label."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from moodal.annotation import accounts
from moodal.annotation.app import create_app
from moodal.annotation.cut import Cuts, OnChange, cut_clips, refuse_without_clips
from moodal.annotation.database import Database, open_database, sqlite_url
from moodal.annotation.exchange import export_votes, import_votes
from moodal.annotation.label_studio import export_label_studio, import_label_studio
from moodal.annotation.protocol import prepare, project_settings
from moodal.annotation.settings import AnnotationSettings
from moodal.data.clips import changed_videos, read_clips, recipe_videos
from moodal.types import InputError

LOCAL = ("127.0.0.1", "localhost", "::1")
CONNECTIONS = 1000  # at the same time
SLOW_END_S = 10  # what is under way when the server ends may take so long
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotateOptions:
    """How to label. ``settings``: None keeps those of the project; ``database``: None is a file in the folder.

    ``hosts``: the names under which the pages may be reached; only this machine's own while ``host`` is local.
    ``address``: where people reach them, for the links of invitations, where that is not ``host`` and ``port``.
    ``behind_proxy``: believe what a proxy on this machine says of the address and the encryption of a request.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    database: str | None = None
    settings: AnnotationSettings | None = None
    hosts: tuple[str, ...] = ()
    address: str | None = None
    behind_proxy: bool = False
    workers: int | None = None
    retry: bool = False


@dataclass(frozen=True)
class Prepared:
    """What is ready to be labelled, and what is not."""

    clips: int
    new: int
    cuts: Cuts
    without_words: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What to tell before the pages open."""
        said = [f"{self.clips} clips to label" + (f", {self.new} of them new" if self.new else "")]
        lost = {e.id: e.note for e in self.cuts.failed}
        if lost:
            first, note = next(iter(lost.items()))
            said.append(f"{len(lost)} clips are left out, the first {first}: {note}; all are in {self.cuts.ledger}")
        if self.without_words:
            said.append(f"{len(self.without_words)} clips are left out because they have no words")
        return said

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        problems = [{"id": e.id, "condition": e.stage, "problem": e.note} for e in self.cuts.failed]
        return {
            "clips": self.clips,
            "new": self.new,
            "left_out": problems,
            "without_words": list(self.without_words),
            "ledger": str(self.cuts.ledger),
        }


def prepare_folder(
    folder: Path, database: Database, options: AnnotateOptions, *, on_change: OnChange | None = None
) -> Prepared:
    """Cut the clips of a recipe folder that passed, and bring the project to them. Done before, it costs little."""
    settings = options.settings or _settings_there(database)
    videos = recipe_videos(folder)
    passed = refuse_without_clips(read_clips(folder), folder)
    if changed := changed_videos(folder / "clips.parquet", videos, [c.video for c in passed]):
        raise InputError(
            f"{videos / changed[0]} is another file now than the one that was screened; bring it back, or begin a "
            "new recipe folder"
        )
    speechless = tuple(c.id for c in passed if "text" in settings.conditions and not (c.text or "").strip())
    wanted = [c for c in passed if c.id not in set(speechless)]
    cuts = cut_clips(
        videos,
        wanted,
        settings.conditions,
        folder / "media",
        workers=options.workers,
        retry=options.retry,
        on_change=on_change,
    )
    if not cuts.clips:
        why = cuts.failed[0].note if cuts.failed else "none of them has words, and words are to be labelled"
        raise InputError(f"no clip in {folder} can be labelled: {why}")
    new = prepare(database, cuts.clips, settings)
    return Prepared(len(cuts.clips), new, cuts, speechless)


def serve(
    folder: Path,
    options: AnnotateOptions,
    *,
    on_change: OnChange | None = None,
    on_ready: Callable[[str, Prepared], None] | None = None,
) -> Prepared:
    """Show the pages until Ctrl-C. ``on_ready`` is told their address when they are there."""
    recipe_videos(folder)  # refuses what is no recipe folder
    with listening(options) as bound:
        database = open_project(folder, options)
        try:
            prepared = prepare_folder(folder, database, options, on_change=on_change)
            address = address_of(options, bound.getsockname()[1])
            for line in (*prepared.lines(), f"labelling at {address}"):
                log.info("%s", line)
            if not accounts.people(database):
                log.warning(
                    "nobody can sign in yet; invite a lead: moodal annotate %s --invite NAME --role lead", folder
                )
            app = create_app(database, folder / "media", hosts=host_names(options))
            if on_ready:
                on_ready(address, prepared)
            run_server(app, bound, options)
        finally:
            database.close()
    return prepared


def invite(folder: Path, options: AnnotateOptions, name: str, role: str = "annotator") -> str:
    """The link with which somebody new sets a password; it is shown once. Works while the pages are served, too."""
    with _project(folder, options) as database:
        token = accounts.invite(database, name, role)
    return f"{address_of(options, options.port)}/invitation/{token}"


def prepare_only(folder: Path, options: AnnotateOptions, *, on_change: OnChange | None = None) -> Prepared:
    """All that comes before the pages open."""
    with _project(folder, options) as database:
        return prepare_folder(folder, database, options, on_change=on_change)


def export(folder: Path, options: AnnotateOptions, file: Path) -> int:
    """Write every label that counts, as votes (.csv, .parquet) or for Label Studio (.json); how many they are."""
    with _project(folder, options) as database:
        return (export_label_studio if file.suffix == ".json" else export_votes)(database, file)


def refresh_votes(folder: Path) -> None:
    """Bring votes.parquet of a folder whose project is beside it to what people have said by now."""
    if (folder / "annotation.sqlite").is_file():
        export(folder, AnnotateOptions(), folder / "votes.parquet")


def import_(folder: Path, options: AnnotateOptions, file: Path) -> int:
    """Add the labels of such a file to the project, all or none of them; how many they are."""
    with _project(folder, options) as database:
        return (import_label_studio if file.suffix == ".json" else import_votes)(database, file)


@contextmanager
def _project(folder: Path, options: AnnotateOptions) -> Iterator[Database]:
    recipe_videos(folder)  # refuses what is no recipe folder
    database = open_project(folder, options)
    try:
        yield database
    finally:
        database.close()


def open_project(folder: Path, options: AnnotateOptions) -> Database:
    """The database of a folder's project."""
    return open_database(options.database or sqlite_url(folder / "annotation.sqlite"))


def address_of(options: AnnotateOptions, port: int) -> str:
    if options.address:
        return options.address.rstrip("/")
    host = "localhost" if options.host in ("0.0.0.0", "::", "") else options.host  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def host_names(options: AnnotateOptions) -> tuple[str, ...]:
    """To which names the pages answer; () for all. A page of another site must not reach them under a name of its own
    that it lets point to this machine."""
    if options.hosts:
        return options.hosts
    own = options.address.partition("://")[2].partition("/")[0].partition(":")[0] if options.address else ""
    if options.host in LOCAL:
        return ("127.0.0.1", "localhost", "[::1]", *([own] if own else []))
    return ()


def run_server(app: Any, bound: socket.socket, options: AnnotateOptions) -> None:
    """Answer requests until Ctrl-C or a polite kill; then what is under way ends first."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # invitations are in addresses
        server_header=False,
        proxy_headers=options.behind_proxy,
        forwarded_allow_ips="127.0.0.1",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=SLOW_END_S,
        ws="none",
        lifespan="off",
    )
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt:
        log.info("the pages are closed; every label that was saved is kept")


def _settings_there(database: Database) -> AnnotationSettings:
    try:
        return project_settings(database)
    except InputError:
        return AnnotationSettings()


def listening(options: AnnotateOptions) -> socket.socket:
    """The port is taken before the work begins, which may be long."""
    if not 0 <= options.port < 65_536:
        raise InputError(f"a port is a number from 0 to 65535, got {options.port}")
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # without the name of the protocol asyncio leaves Nagle's algorithm on, and every page waits 40 ms for an ACK
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((options.host, options.port))
        bound.listen(2048)
    except OSError as e:
        bound.close()
        said = os.strerror(e.errno) if e.errno and e.errno > 0 else str(e)
        raise InputError(
            f"the pages cannot be shown at {options.host}, port {options.port} ({said}); "
            "choose another: moodal annotate DIR --port 8081"
        ) from e
    return bound
