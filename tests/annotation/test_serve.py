"""Beginning to serve: what is refused before any work, what is prepared, and where the links lead."""

import importlib
import importlib.util
import logging
import socket
from dataclasses import replace

import pytest
from tests.annotation.projects import CHEAP, PASSWORD, make_clips, make_folder, make_video, open_folder

from moodal.annotation import accounts
from moodal.annotation.protocol import project_settings
from moodal.annotation.serve import AnnotateOptions, address_of, host_names, invite, listening, prepare_folder, serve
from moodal.annotation.settings import AnnotationSettings
from moodal.data.clips import read_clips, write_clips, write_recipe
from moodal.files import fingerprint
from moodal.types import InputError

AUDIO = AnnotationSettings(conditions=("audio",), labels_per_clip=1)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path, 2)


@pytest.fixture
def db(folder):
    database = open_folder(folder)
    yield database
    database.close()


def test_a_port_that_is_taken_is_said_before_any_work(folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1, port {port} \(Address already in use\); choose another"):
            serve(folder, AnnotateOptions(port=port))
    assert not (folder / "media").exists()


@pytest.mark.parametrize("options", [AnnotateOptions(port=70_000), AnnotateOptions(host="no such host", port=0)])
def test_an_address_that_cannot_be_is_refused_in_a_sentence(folder, options):
    with pytest.raises(InputError, match="port"):
        serve(folder, options)


def test_what_is_small_is_sent_at_once():
    """Else every page waits 40 ms for an acknowledgement: asyncio looks at the protocol to switch that off."""
    with listening(AnnotateOptions(port=0)) as bound:
        assert bound.proto == socket.IPPROTO_TCP


def test_a_folder_without_a_recipe_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder of the recipe"):
        serve(tmp_path, AnnotateOptions(port=0))
    with pytest.raises(InputError, match="no folder of the recipe"):
        invite(tmp_path, AnnotateOptions(), "Ada")
    assert not (tmp_path / "annotation.sqlite").exists()


def test_what_is_cut_can_be_labelled_and_what_fails_is_told(folder, db):
    clips = read_clips(folder)
    write_clips(folder, [*clips, replace(clips[0], id="late", start_s=90.0, end_s=91.0)])
    options = AnnotateOptions(settings=AUDIO, workers=1)
    prepared = prepare_folder(folder, db, options)
    assert (prepared.clips, prepared.new) == (2, 2)
    assert prepared.lines()[0] == "2 clips to label, 2 of them new"
    assert prepared.lines()[1].startswith("1 clips are left out, the first late: ")
    assert [p["id"] for p in prepared.as_dict()["left_out"]] == ["late"]
    again = prepare_folder(folder, db, AnnotateOptions(workers=1))  # the settings of the project stay
    assert (again.clips, again.new) == (2, 0)
    assert project_settings(db) == AUDIO


def test_a_video_that_was_replaced_since_the_screening_is_not_cut(folder, db):
    video = folder.parent / "videos" / "episode.mp4"
    write_clips(folder, read_clips(folder), {"episode.mp4": fingerprint(video)})
    assert prepare_folder(folder, db, AnnotateOptions(settings=AUDIO)).clips
    make_video(video, 5)
    with pytest.raises(InputError, match=r"episode\.mp4 is another file now than the one that was screened"):
        prepare_folder(folder, db, AnnotateOptions(settings=AUDIO))


def test_where_words_are_labelled_clips_without_them_are_left_out(tmp_path):
    write_recipe(tmp_path, tmp_path)
    first, second = make_clips(2)
    write_clips(tmp_path, [first, replace(second, text=" ")])
    db = open_folder(tmp_path)
    options = AnnotateOptions(settings=AnnotationSettings(conditions=("text",), labels_per_clip=1))
    prepared = prepare_folder(tmp_path, db, options)
    assert (prepared.clips, prepared.without_words) == (1, (second.id,))
    write_clips(tmp_path, [replace(second, text=None)])
    with pytest.raises(InputError, match="none of them has words"):
        prepare_folder(tmp_path, db, options)
    db.close()


def test_an_invitation_from_the_command_line_lets_somebody_in(folder, db, monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", CHEAP)
    link = invite(folder, AnnotateOptions(address="https://lab.example/"), "Lea", "lead")
    assert link.startswith("https://lab.example/invitation/")
    person = accounts.accept(db, link.rpartition("/")[2], PASSWORD)
    assert (person.name, person.role) == ("Lea", "lead")


@pytest.mark.parametrize(
    ("options", "address", "hosts"),
    [
        (AnnotateOptions(), "http://127.0.0.1:8080", ("127.0.0.1", "localhost", "[::1]")),
        (AnnotateOptions(host="::1"), "http://[::1]:8080", ("127.0.0.1", "localhost", "[::1]")),
        (AnnotateOptions(host="0.0.0.0"), "http://localhost:8080", ()),  # noqa: S104
        (AnnotateOptions(host="10.1.2.3", hosts=("lab",)), "http://10.1.2.3:8080", ("lab",)),
        (
            AnnotateOptions(address="https://lab.example"),
            "https://lab.example",
            ("127.0.0.1", "localhost", "[::1]", "lab.example"),
        ),
    ],
)
def test_pages_answer_to_their_own_names(options, address, hosts):
    assert address_of(options, options.port) == address
    assert host_names(options) == hosts


def test_nobody_invited_is_said(folder, caplog, monkeypatch):
    from moodal.annotation import serve as module

    monkeypatch.setattr(module, "run_server", lambda *_: None)
    with caplog.at_level(logging.INFO, logger="moodal"):
        serve(folder, AnnotateOptions(port=0, settings=AUDIO, workers=1))
    assert "nobody can sign in yet; invite a lead" in caplog.text
    assert "labelling at http://127.0.0.1:" in caplog.text


def test_without_its_packages_it_says_how_to_get_them(monkeypatch):

    from moodal import annotation

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    with pytest.raises(InputError, match=r"labelling needs uvicorn; install it: pip install 'moodal\[annotate\]'"):
        importlib.reload(annotation)
    monkeypatch.undo()
    importlib.reload(annotation)
