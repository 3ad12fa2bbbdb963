"""The tables of the labelling database. Times are seconds since 1970 in UTC; numbers of clips count from 0."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, Integer, MetaData, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import Double

NAMING = {  # so that a later migration can name what it changes, on every kind of database
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {float: Double}  # noqa: RUF012 - SQLAlchemy reads it from the class


class Project(Base):
    """The one row of the project. ``revision`` grows with every change of clips, gold or settings."""

    __tablename__ = "project"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    settings: Mapped[str] = mapped_column(Text)
    num_clips: Mapped[int] = mapped_column(default=0)
    revision: Mapped[int] = mapped_column(default=0)
    created_at_s: Mapped[float]


class Person(Base):
    """Somebody who labels or leads. Without a password hash the invitation is not yet accepted."""

    __tablename__ = "person"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    key: Mapped[str] = mapped_column(String(400), unique=True)  # the name as it is compared
    role: Mapped[str] = mapped_column(String(20))
    password_hash: Mapped[str | None] = mapped_column(String(500))
    active: Mapped[bool] = mapped_column(default=True)
    created_at_s: Mapped[float]

    __table_args__ = ({"sqlite_autoincrement": True},)


class Invitation(Base):
    __tablename__ = "invitation"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    expires_at_s: Mapped[float]


class SignIn(Base):
    """A session: the browser holds the token, we hold its hash."""

    __tablename__ = "sign_in"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    created_at_s: Mapped[float]
    expires_at_s: Mapped[float]


class Failure(Base):
    """Wrong passwords in a row, for a name or an address (hashed)."""

    __tablename__ = "failure"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int]
    last_at_s: Mapped[float]


class ClipRow(Base):
    __tablename__ = "clip"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String(500), unique=True)
    video: Mapped[str] = mapped_column(Text)
    episode: Mapped[str] = mapped_column(Text)
    start_s: Mapped[float]
    end_s: Mapped[float]
    text: Mapped[str | None] = mapped_column(Text)
    speaker: Mapped[str | None] = mapped_column(Text)


class Gold(Base):
    """A clip whose label in a condition is known: it tests people and takes no part in the main round."""

    __tablename__ = "gold"

    clip: Mapped[int] = mapped_column(ForeignKey("clip.number"), primary_key=True)
    condition: Mapped[str] = mapped_column(String(10), primary_key=True)
    label: Mapped[str] = mapped_column(String(100))


class Qualification(Base):
    """Where a person stands in a condition; no row: he has not begun. ``attempt`` counts from 0."""

    __tablename__ = "qualification"

    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    condition: Mapped[str] = mapped_column(String(10), primary_key=True)
    attempt: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(String(10))  # open, passed, failed
    lead_id: Mapped[int | None] = mapped_column(ForeignKey("person.id"))


class AssignmentRow(Base):
    """A seat at a clip in a condition, taken by one person: held while ``answer_id`` is empty, else answered.

    In the main round each of the k seats exists once and nobody has two of one clip and condition. A qualification has
    no seat; an adjudication has seat 0. ``reopened_at_s``: its person went back to it, the answer still counts.
    """

    __tablename__ = "assignment"

    id: Mapped[int] = mapped_column(primary_key=True)
    clip: Mapped[int] = mapped_column(ForeignKey("clip.number"))
    condition: Mapped[str] = mapped_column(String(10))
    round: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int] = mapped_column(default=0)
    seat: Mapped[int | None]
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    claimed_at_s: Mapped[float]
    answer_id: Mapped[int | None] = mapped_column(Integer)  # the latest; no foreign key, which would go round
    reopened_at_s: Mapped[float | None]

    __table_args__ = (
        UniqueConstraint("clip", "condition", "round", "seat", name="uq_assignment_seat"),
        UniqueConstraint("clip", "condition", "round", "person_id", "attempt", name="uq_assignment_person"),
        Index("ix_assignment_person", "person_id", "id"),
        Index(
            "ix_assignment_held",
            "person_id",
            "claimed_at_s",
            sqlite_where=text("answer_id IS NULL"),
            postgresql_where=text("answer_id IS NULL"),
        ),
        Index(
            "ix_assignment_reopened",
            "person_id",
            sqlite_where=text("reopened_at_s IS NOT NULL"),
            postgresql_where=text("reopened_at_s IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},  # a number is never given twice: readers go on from the last they saw
    )


class Returned(Base):
    """An assignment that was given back unanswered; the clip was shown all the same."""

    __tablename__ = "returned"

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(index=True)
    clip: Mapped[int]
    condition: Mapped[str] = mapped_column(String(10))
    round: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int] = mapped_column(default=0)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    claimed_at_s: Mapped[float]
    returned_at_s: Mapped[float]
    revived_id: Mapped[int | None]  # the assignment under which it was answered after all

    __table_args__ = ({"sqlite_autoincrement": True},)


class AnswerRow(Base):
    """One answer; rows are only ever added, the assignment points at the one that counts."""

    __tablename__ = "answer"

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignment.id"), index=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    label: Mapped[str] = mapped_column(String(100))
    intensity: Mapped[str | None] = mapped_column(String(100))
    reason: Mapped[str | None] = mapped_column(Text)
    comment: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float | None] = mapped_column()
    at_s: Mapped[float]

    __table_args__ = ({"sqlite_autoincrement": True},)
