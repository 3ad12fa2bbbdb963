"""Labels out and in: our table of votes, and the JSON of Label Studio."""

from __future__ import annotations

from pathlib import Path

from moodal.annotation.database import Database


def export_votes(db: Database, file: Path) -> int:
    """Every label that counts as a table of votes (.csv or .parquet); how many there are."""
    raise NotImplementedError


def import_votes(db: Database, file: Path) -> int:
    """Take the votes of a table into the project, all or none; how many there are."""
    raise NotImplementedError


def export_label_studio(db: Database, file: Path) -> int:
    """Clips and labels as a Label Studio JSON file; how many tasks there are."""
    raise NotImplementedError


def import_label_studio(db: Database, file: Path) -> int:
    """Take the labels of a Label Studio JSON export into the project, all or none; how many there are."""
    raise NotImplementedError
