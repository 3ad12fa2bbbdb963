"""Puts the paper's tables that ``moodal reproduce`` left in runs folders on one page: paper-tables.md.

python docs/tables.py RUNS [RUNS ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

TABLES = ("table3", "table4", "table5")
PAGE = Path(__file__).with_name("paper-tables.md")
HEAD = """# The paper's tables, made again

Every table is made by the command above it, and says below what was done; put on this page by `docs/tables.py`.
Columns say whose numbers they hold: ours, measured here, or the paper's, copied from
[arXiv 2302.01555](https://arxiv.org/abs/2302.01555). [How to make them](reproduce.md).
"""


def page(folders: list[Path]) -> str:
    """Tables 3, then 4, then 5, each for every folder that has it."""
    found = [f / f"{table}.md" for table in TABLES for f in folders if (f / f"{table}.md").exists()]
    without = [str(f) for f in folders if not any(file.parent == f for file in found)]
    if without or not found:
        raise SystemExit(f"docs/tables.py: no table in {', '.join(without) or 'nothing'}; run moodal reproduce first")
    return "\n".join([HEAD, *(file.read_text(encoding="utf-8") for file in found)])


if __name__ == "__main__":
    PAGE.write_text(page([Path(a) for a in sys.argv[1:]]), encoding="utf-8")
