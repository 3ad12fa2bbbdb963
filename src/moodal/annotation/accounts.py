"""Who may label: invitations, passwords, sign-ins. Nothing at rest lets anybody in: tokens and passwords are hashed."""

from __future__ import annotations

import hashlib
import secrets
import threading
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.orm import Session

from moodal.annotation.database import Database
from moodal.annotation.schema import Failure, Invitation, SignIn
from moodal.annotation.schema import Person as PersonRow
from moodal.types import InputError

ROLES = ("annotator", "lead")
INVITATION_S = 14 * 86_400
SESSION_S = 14 * 86_400
PASSWORD_LENGTH = (10, 1000)
FREE_TRIES = {"name": 5, "address": 20}  # several people of a lab may share an address
LONGEST_WAIT_S = 900.0
FORGOTTEN_S = 3600.0  # after so long without a failure, earlier ones do not count
SIGNED_IN = (
    select(
        PersonRow.id,
        PersonRow.name,
        PersonRow.role,
        PersonRow.active,
        PersonRow.password_hash.is_not(None).label("accepted"),
    )
    .join(SignIn, SignIn.person_id == PersonRow.id)
    .where(SignIn.token_hash == bindparam("token_hash"), SignIn.expires_at_s > bindparam("now"), PersonRow.active)
)
UNSEEN = frozenset(map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, *range(0xFE00, 0xFE10))))  # though letters
HASHER = PasswordHasher()
_hashing = threading.BoundedSemaphore(2)  # each takes 64 MB on purpose; fifty at once would take the machine


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who labels ("annotator") or leads. ``accepted``: has set a password."""

    id: int
    name: str
    role: str
    active: bool
    accepted: bool

    @property
    def is_lead(self) -> bool:
        return self.role == "lead"


class TooManyTriesError(InputError):
    """Too many wrong passwords; ``wait_s`` until the next may be tried."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many tries; wait {_duration(wait_s)} and try again")
        self.wait_s = wait_s


def invite(db: Database, name: str, role: str) -> str:
    """A new person, and the token of the invitation: shown once, good once, for two weeks."""
    name = checked_name(name)
    if role not in ROLES:
        raise InputError(f"no role called {role!r}; there are: {', '.join(ROLES)}")
    with db.write() as session:
        if _by_name(session, name) is not None:
            raise InputError(f"there is already a person called {name!r}; choose another name, or reset that one")
        now = db.clock()
        person = PersonRow(name=name, key=key_of(name), role=role, active=True, created_at_s=now)
        session.add(person)
        session.flush()
        return _new_invitation(session, person.id, now)


def accept(db: Database, token: str, password: str) -> Person:
    """The invited person sets a password; the invitation is used up."""
    _check_password(password)
    hashed = _hash(password)
    with db.write() as session:
        invitation = session.get(Invitation, _digest(token))
        if invitation is None or invitation.expires_at_s <= db.clock():
            raise InputError("this invitation does not exist, is used already or too old; ask your lead for a new one")
        person = session.get_one(PersonRow, invitation.person_id)
        if not person.active:
            raise InputError("this account is closed; ask your lead")
        person.password_hash = hashed
        session.execute(delete(Invitation).where(Invitation.person_id == person.id))
        session.execute(delete(Failure).where(Failure.key == _failure_key("name", person.key)))
        return _person(person)


def invited(db: Database, token: str) -> Person | None:
    """Whom an invitation is for; None: it does not exist, or no longer."""
    with db.read() as session:
        invitation = session.get(Invitation, _digest(token))
        if invitation is None or invitation.expires_at_s <= db.clock():
            return None
        person = session.get_one(PersonRow, invitation.person_id)
        return _person(person) if person.active else None


def sign_in(db: Database, name: str, password: str, *, address: str = "", known: str = "") -> str:
    """The token of a new session. A wrong name, a wrong password and a closed account sound and take the same.

    A try is counted before it is looked at, so that many at once are no way round the limit. ``known``: what
    ``known_browser`` gave after an earlier sign-in; its tries are counted apart, so that a stranger who keeps trying a
    name, from anywhere, keeps nobody out who has been in from where he sits.
    """
    key = key_of(name)
    with db.read() as session:
        row = session.scalar(select(PersonRow).where(PersonRow.key == key))
    hashed = row.password_hash if row is not None and row.active else None
    kinds = {_failure_key("name", key): "name"}
    if hashed and known and secrets.compare_digest(known.encode("utf-8", "replace"), _known(key, hashed).encode()):
        kinds = {_failure_key("known", known): "name"}
    elif address:
        kinds[_failure_key("address", network_of(address))] = "address"
    with db.write() as session:
        _count_try(session, db.clock(), kinds)
    nobody = _nobody()  # in every case, or the first unknown name would take longer than the others
    right = _verify(hashed or nobody, password[: PASSWORD_LENGTH[1] + 1])
    if row is None or hashed is None or not right:
        raise InputError("the name or the password is wrong")
    renewed = _hash(password) if HASHER.check_needs_rehash(hashed) else None
    token, now = secrets.token_urlsafe(32), db.clock()
    with db.write() as session:
        person = session.get_one(PersonRow, row.id)
        if not person.active or person.password_hash != hashed:  # changed while we were looking
            raise InputError("the name or the password is wrong")
        if renewed:
            person.password_hash = renewed
        _take_back_try(session, kinds)
        session.execute(delete(SignIn).where(SignIn.expires_at_s <= now))
        session.add(SignIn(token_hash=_digest(token), person_id=row.id, created_at_s=now, expires_at_s=now + SESSION_S))
    return token


def known_browser(db: Database, session_token: str) -> str:
    """What a browser keeps that somebody signed in from, until his password changes; "" where nobody is signed in."""
    found = db.ask(
        select(PersonRow.key, PersonRow.password_hash)
        .join(SignIn, SignIn.person_id == PersonRow.id)
        .where(SignIn.token_hash == _digest(session_token))
    )
    return "" if found is None or found.password_hash is None else _known(found.key, found.password_hash)


def network_of(address: str) -> str:
    """Whom a limit counts as one: an IPv4 address, or the 2^64 IPv6 addresses that any one line has."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)


def person_of(db: Database, session_token: str) -> Person | None:
    """Who is signed in with a token; None: nobody, or no longer."""
    found = db.ask(SIGNED_IN, token_hash=_digest(session_token), now=db.clock())
    return None if found is None else Person(**found._mapping)


def sign_out(db: Database, session_token: str) -> None:
    with db.write() as session:
        session.execute(delete(SignIn).where(SignIn.token_hash == _digest(session_token)))


def people(db: Database) -> list[Person]:
    """Everybody, in the order of their invitations."""
    with db.read() as session:
        return [_person(row) for row in session.scalars(select(PersonRow).order_by(PersonRow.id))]


def deactivate(db: Database, person_id: int) -> None:
    """Close an account: its sessions end at once, its labels stay, what it holds is free when its time is up."""
    with db.write() as session:
        person = _by_id(session, person_id)
        leads = select(func.count()).where(
            PersonRow.role == "lead", PersonRow.active, PersonRow.password_hash.is_not(None), PersonRow.id != person_id
        )
        if person.role == "lead" and not session.scalar(leads):
            raise InputError(f"{person.name!r} is the only lead; invite another first")
        person.active = False
        session.execute(delete(SignIn).where(SignIn.person_id == person_id))
        session.execute(delete(Invitation).where(Invitation.person_id == person_id))


def reset(db: Database, person_id: int) -> str:
    """A new invitation for somebody who lost a password, or comes back; the old password and sessions end at once."""
    with db.write() as session:
        person = _by_id(session, person_id)
        person.active, person.password_hash = True, None
        session.execute(delete(SignIn).where(SignIn.person_id == person_id))
        session.execute(delete(Invitation).where(Invitation.person_id == person_id))
        return _new_invitation(session, person_id, db.clock())


def _new_invitation(session: Session, person_id: int, now: float) -> str:
    token = secrets.token_urlsafe(32)
    session.add(Invitation(token_hash=_digest(token), person_id=person_id, expires_at_s=now + INVITATION_S))
    return token


def _count_try(session: Session, now: float, kinds: dict[str, str]) -> None:
    """Refuse a try that comes too soon, else count it for its name and its address."""
    session.execute(delete(Failure).where(Failure.last_at_s < now - FORGOTTEN_S))
    rows = {key: session.get(Failure, key) for key in kinds}
    waits = [_wait_s(row.count - FREE_TRIES[kinds[key]]) - (now - row.last_at_s) for key, row in rows.items() if row]
    if waits and max(waits) > 0:
        raise TooManyTriesError(max(waits))
    for key, row in rows.items():
        if row is None:
            session.add(Failure(key=key, count=1, last_at_s=now))
        else:
            row.count, row.last_at_s = row.count + 1, now


def _take_back_try(session: Session, kinds: dict[str, str]) -> None:
    """After a right password. Of an address only this one try: others were perhaps somebody else's, and wrong."""
    for key, kind in kinds.items():
        row = session.get(Failure, key)
        if row is None:
            continue
        row.count -= 1
        if kind == "name" or row.count <= 0:
            session.delete(row)


def _known(key: str, password_hash: str) -> str:
    """Only who can read the database could make it up, and then he needs none."""
    return _digest(f"known:{key}:{password_hash}")


def _wait_s(above: int) -> float:
    """Nothing for the free tries, then 1 s, 2 s, 4 s and so on."""
    return min(2.0 ** min(above, 20), LONGEST_WAIT_S) if above >= 0 else 0.0


def _by_name(session: Session, name: str) -> PersonRow | None:
    return session.scalar(select(PersonRow).where(PersonRow.key == key_of(name)))


def _by_id(session: Session, person_id: int) -> PersonRow:
    person = session.get(PersonRow, person_id)
    if person is None:
        raise InputError(f"there is no person number {person_id}")
    return person


def _person(row: PersonRow) -> Person:
    return Person(row.id, row.name, row.role, row.active, row.password_hash is not None)


def checked_name(name: str) -> str:
    """A name as it is kept, or an InputError."""
    name = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(name) <= 100 or not name.isprintable() or not key_of(name):
        raise InputError("a name has 1 to 100 visible characters")
    return name


def _check_password(password: str) -> None:
    least, most = PASSWORD_LENGTH
    if not least <= len(password) <= most:
        raise InputError(f"a password has {least} to {most} characters, this has {len(password)}")


def key_of(name: str) -> str:
    """How names are compared: neither capitals nor the way an accent is written tell two people apart."""
    name = name[:400].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")  # no database keeps these
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join("".join(c for c in folded if c not in UNSEEN).split())[:400]  # a page shows two spaces as one


def _digest(token: str) -> str:
    """Tokens are random and long: a plain hash cannot be turned round."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _failure_key(kind: str, value: str) -> str:
    return _digest(f"{kind}:{value}")


def _hash(password: str) -> str:
    with _hashing:
        return HASHER.hash(password.encode("utf-8", "surrogatepass"))


def _verify(hashed: str, password: str) -> bool:
    with _hashing:
        try:
            return HASHER.verify(hashed, password.encode("utf-8", "surrogatepass"))
        except (VerificationError, InvalidHashError):
            return False


_nobodies: dict[int, str] = {}


def _nobody() -> str:
    """The hash of a password that nobody has, as costly to compare as any."""
    if id(HASHER) not in _nobodies:
        _nobodies[id(HASHER)] = _hash(secrets.token_hex(16))
    return _nobodies[id(HASHER)]


def _duration(seconds: float) -> str:
    return f"{max(round(seconds), 1)} seconds" if seconds < 90 else f"{round(seconds / 60)} minutes"
