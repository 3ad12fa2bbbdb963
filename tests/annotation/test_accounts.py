"""Who gets in, who does not, and what a thief of the database would find."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from argon2 import PasswordHasher
from sqlalchemy import inspect, text
from tests.annotation.conftest import PASSWORD, join

from moodal.annotation import accounts
from moodal.annotation.accounts import (
    INVITATION_S,
    SESSION_S,
    Person,
    TooManyTriesError,
    accept,
    deactivate,
    invite,
    invited,
    known_browser,
    network_of,
    people,
    person_of,
    reset,
    sign_in,
    sign_out,
)
from moodal.annotation.database import open_database
from moodal.annotation.schema import Person as PersonRow
from moodal.types import InputError

WRONG = "the name or the password is wrong"


def test_an_invitation_leads_to_a_session(database):
    token = invite(database, "Ada", "annotator")
    assert invited(database, token) == Person(1, "Ada", "annotator", active=True, accepted=False)
    person = accept(database, token, PASSWORD)
    assert person == Person(1, "Ada", "annotator", active=True, accepted=True)
    session = sign_in(database, " ada ", PASSWORD)
    assert person_of(database, session) == person
    sign_out(database, session)
    assert person_of(database, session) is None


def test_nothing_at_rest_lets_anybody_in(database):
    token = invite(database, "Ada", "lead")
    pending = invite(database, "Bob", "lead")
    accept(database, token, PASSWORD)
    session = sign_in(database, "Ada", PASSWORD, address="10.0.0.7")
    with pytest.raises(InputError):
        sign_in(database, "Bob", PASSWORD, address="10.0.0.7")
    with database.read() as s:
        tables = inspect(s.connection()).get_table_names()
        stored = "".join(str(row) for t in tables for row in s.execute(text(f'SELECT * FROM "{t}"')))  # noqa: S608
    assert "$argon2id$" in stored
    for secret in (token, pending, session, PASSWORD, "10.0.0.7"):
        assert secret not in stored


def test_an_invitation_is_good_once(database):
    token = invite(database, "Ada", "annotator")
    accept(database, token, PASSWORD)
    with pytest.raises(InputError, match="used already"):
        accept(database, token, "another password")
    sign_in(database, "Ada", PASSWORD)
    assert invited(database, token) is None


def test_an_invitation_accepted_twice_at_once_is_accepted_once(database):
    token = invite(database, "Ada", "annotator")

    def take(password):
        try:
            return accept(database, token, password)
        except InputError:
            return None

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(take, [f"password number {i}" for i in range(4)]))
    assert sum(person is not None for person in taken) == 1


def test_invitations_and_sessions_end(sqlite, clock):
    token = invite(sqlite, "Ada", "annotator")
    clock.now += INVITATION_S
    with pytest.raises(InputError, match="too old"):
        accept(sqlite, token, PASSWORD)
    accept(sqlite, reset(sqlite, 1), PASSWORD)
    session = sign_in(sqlite, "Ada", PASSWORD)
    clock.now += SESSION_S - 1
    assert person_of(sqlite, session) is not None
    clock.now += 1
    assert person_of(sqlite, session) is None


def test_sessions_survive_a_restart(url, clock):
    db = open_database(url, clock=clock)
    join(db, "Ada", "annotator")
    session = sign_in(db, "Ada", PASSWORD)
    db.close()
    db = open_database(url, clock=clock)
    assert person_of(db, session).name == "Ada"
    db.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "1 to 100"), (" ", "1 to 100"), ("x" * 101, "1 to 100"), ("a\nb", "visible"), ("ADA", "already a person")],
)
def test_names_that_cannot_be_are_refused(sqlite, name, said):
    invite(sqlite, "Ada", "annotator")
    with pytest.raises(InputError, match=said):
        invite(sqlite, name, "annotator")


def test_an_unknown_role_is_refused(sqlite):
    with pytest.raises(InputError, match="no role called 'boss'"):
        invite(sqlite, "Ada", "boss")


@pytest.mark.parametrize("password", ["", "short", "x" * 1001])
def test_passwords_have_a_length(sqlite, password):
    with pytest.raises(InputError, match=r"10 to 1000 characters"):
        accept(sqlite, invite(sqlite, "Ada", "annotator"), password)


def test_every_way_to_fail_sounds_the_same(sqlite):
    join(sqlite, "Ada", "annotator")
    join(sqlite, "Gone", "annotator")
    invite(sqlite, "Invited", "annotator")
    deactivate(sqlite, 2)
    for name, password in (("Ada", "wrong wrong"), ("Nobody", PASSWORD), ("Gone", PASSWORD), ("Invited", "")):
        with pytest.raises(InputError, match=f"^{WRONG}$"):
            sign_in(sqlite, name, password)


def test_unknown_names_cost_one_comparison_too(sqlite, monkeypatch):
    """The same work, so the same time: every way to fail asks argon2 once."""
    join(sqlite, "Ada", "annotator")
    asked = []
    verify = accounts._verify
    monkeypatch.setattr(accounts, "_verify", lambda h, p: asked.append(h[:9]) or verify(h, p))
    for name in ("Ada", "Nobody", "Nobody else"):
        with pytest.raises(InputError):
            sign_in(sqlite, name, "wrong wrong")
    assert asked == ["$argon2id"] * 3


def test_hostile_names_and_passwords_are_just_wrong(database):
    join(database, "Ada", "annotator")
    for text_ in ("\0", "\ud800", "' OR 1=1 --", "x" * 100_000, "𝔸𝕕𝕒" * 99):
        for name, password in ((text_, PASSWORD), ("Ada", text_)):
            with pytest.raises(InputError):
                sign_in(database, name, password)
    assert person_of(database, "\ud800\0") is None


def test_a_closed_account_is_out_at_once_and_can_come_back(database):
    join(database, "Ada", "annotator")
    session = sign_in(database, "Ada", PASSWORD)
    deactivate(database, 1)
    assert person_of(database, session) is None
    token = reset(database, 1)
    assert person_of(database, session) is None
    with pytest.raises(InputError, match=WRONG):
        sign_in(database, "Ada", PASSWORD)
    accept(database, token, "a new password")
    sign_in(database, "Ada", "a new password")
    assert people(database)[0].active


def test_the_last_lead_stays(sqlite):
    join(sqlite, "Ada", "lead")
    invite(sqlite, "Bob", "lead")  # invited, not there yet
    with pytest.raises(InputError, match="the only lead"):
        deactivate(sqlite, 1)
    join(sqlite, "Cleo", "lead")
    deactivate(sqlite, 1)


def test_people_who_do_not_exist_are_named(sqlite):
    for change in (deactivate, reset):
        with pytest.raises(InputError, match="no person number 7"):
            change(sqlite, 7)


def test_a_stronger_setting_renews_the_hash_at_the_next_sign_in(sqlite, monkeypatch):
    join(sqlite, "Ada", "annotator")
    monkeypatch.setattr(accounts, "HASHER", PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    sign_in(sqlite, "Ada", PASSWORD)
    with sqlite.read() as session:
        assert "m=16,t=2" in session.get(PersonRow, 1).password_hash
    sign_in(sqlite, "Ada", PASSWORD)


# --- the rate limit ---


def fail(db, name, address="", times=1):
    for _ in range(times):
        with pytest.raises(InputError, match=WRONG):
            sign_in(db, name, "wrong wrong", address=address)


def test_after_five_wrong_passwords_one_has_to_wait_longer_and_longer(database, clock):
    join(database, "Ada", "annotator")
    fail(database, "Ada", times=5)
    for wait in (1, 2, 4, 8):
        with pytest.raises(TooManyTriesError) as refused:
            sign_in(database, "Ada", PASSWORD)  # even with the right one
        assert refused.value.wait_s == pytest.approx(wait)
        clock.now += wait
        fail(database, "Ada")
    clock.now += 16
    sign_in(database, "Ada", PASSWORD)
    fail(database, "Ada", times=5)  # a success begins the count anew


def test_failures_are_remembered_across_a_restart(url, clock):
    db = open_database(url, clock=clock)
    join(db, "Ada", "annotator")
    fail(db, "Ada", times=5)
    db.close()
    db = open_database(url, clock=clock)
    with pytest.raises(TooManyTriesError, match="wait 1 seconds"):
        sign_in(db, "Ada", PASSWORD)
    db.close()


def test_many_names_from_one_address_have_to_wait_too(sqlite, clock):
    join(sqlite, "Ada", "annotator")
    for i in range(20):
        fail(sqlite, f"guess {i}", "10.0.0.7")
    with pytest.raises(TooManyTriesError):
        sign_in(sqlite, "Ada", PASSWORD, address="10.0.0.7")
    sign_in(sqlite, "Ada", PASSWORD, address="10.0.0.8")
    clock.now += 3601
    sign_in(sqlite, "Ada", PASSWORD, address="10.0.0.7")


def test_many_tries_at_once_are_no_way_round(database):
    join(database, "Ada", "annotator")

    def attempt(_):
        try:
            sign_in(database, "Ada", "wrong wrong")
        except TooManyTriesError:
            return "refused"
        except InputError:
            return "wrong"

    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(attempt, range(16)))
    assert said.count("wrong") == 5


def test_the_wait_has_an_end(sqlite, clock):
    fail(sqlite, "Ada", times=5)
    for _ in range(20):
        clock.now += 900
        fail(sqlite, "Ada")
    with pytest.raises(TooManyTriesError, match="15 minutes"):
        sign_in(sqlite, "Ada", PASSWORD)


def test_a_stranger_who_keeps_trying_a_name_does_not_keep_its_person_out(database):
    accept(database, invite(database, "Lea", "lead"), PASSWORD)
    known = known_browser(database, sign_in(database, "Lea", PASSWORD, address="10.0.0.7"))
    for _ in range(12):
        with suppress(InputError):
            sign_in(database, "Lea", "wrong wrong", address="10.0.0.7")
    with pytest.raises(TooManyTriesError):
        sign_in(database, "Lea", PASSWORD, address="10.0.0.7")
    assert sign_in(database, "Lea", PASSWORD, address="10.0.0.7", known=known)
    for _ in range(12):  # and who has her browser cannot try for ever
        with suppress(InputError):
            sign_in(database, "Lea", "wrong wrong", known=known)
    with pytest.raises(TooManyTriesError):
        sign_in(database, "Lea", PASSWORD, known=known)


def test_a_known_browser_is_known_for_one_person_and_one_password(sqlite):
    for name in ("Ada", "Lea"):
        accept(sqlite, invite(sqlite, name, "lead"), PASSWORD)
    known = known_browser(sqlite, sign_in(sqlite, "Ada", PASSWORD))
    for name in ("Ada", "Lea"):
        for _ in range(6):
            with suppress(InputError):
                sign_in(sqlite, name, "wrong wrong")
    with pytest.raises(TooManyTriesError):
        sign_in(sqlite, "Lea", PASSWORD, known=known)
    number = next(p.id for p in people(sqlite) if p.name == "Ada")
    accept(sqlite, reset(sqlite, number), "another password")
    for _ in range(6):
        with suppress(InputError):
            sign_in(sqlite, "Ada", "wrong wrong")
    with pytest.raises(TooManyTriesError):
        sign_in(sqlite, "Ada", "another password", known=known)
    assert known_browser(sqlite, "no session") == ""


def test_one_right_password_does_not_free_the_wrong_ones_of_its_address(sqlite):
    for name in ("Eve", *(f"person {i}" for i in range(8))):
        accept(sqlite, invite(sqlite, name, "annotator"), PASSWORD)
    for i in range(8):
        for _ in range(3):
            with suppress(InputError):
                sign_in(sqlite, f"person {i}", "wrong wrong", address="10.0.0.7")
        with suppress(InputError):
            sign_in(sqlite, "Eve", PASSWORD, address="10.0.0.7")
    with pytest.raises(TooManyTriesError):
        sign_in(sqlite, "person 7", "wrong wrong", address="10.0.0.7")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_all_addresses_of_a_line_are_one(address, network):
    assert network_of(address) == network


@pytest.mark.parametrize("twin", ["Ada  B", "Ada\ufe0f B", "A\u034fda B", "ADA B"])
def test_two_names_that_look_the_same_are_one(sqlite, twin):
    invite(sqlite, "Ada B", "annotator")
    with pytest.raises(InputError, match="already a person"):
        invite(sqlite, twin, "annotator")


def test_a_name_that_nobody_sees_is_none(sqlite):
    with pytest.raises(InputError, match="visible characters"):
        invite(sqlite, "\u3164\u115f", "annotator")
