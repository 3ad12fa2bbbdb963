"""Puts the tables and verdicts of finished runs into the words of experiments.template.md: experiments.md.

python docs/experiments.py sdme=RUNS ravdess=RUNS ravdess_std=RUNS mosi=RUNS mosi_within=RUNS
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TEMPLATE = Path(__file__).with_name("experiments.template.md")


def page(runs: dict[str, str]) -> str:
    """The template with {{NAME}} and {{NAME_verdict}} filled in; a name without runs is an error."""
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, folder in runs.items():
        tables, verdict = report(folder)
        text = text.replace(f"{{{{{name}}}}}", tables).replace(f"{{{{{name}_verdict}}}}", verdict)
    if left := re.findall(r"\{\{(\w+)\}\}", text):
        raise SystemExit(f"docs/experiments.py: nothing was given for {', '.join(left)}")
    return text


def report(folder: str) -> tuple[str, str]:
    """The tables of ``moodal report`` with the first one's legend, and the verdict."""
    command = [sys.executable, "-m", "moodal", "report", folder, "--format", "markdown"]
    blocks = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split("\n\n")
    tables = [b for b in blocks if b.startswith("|")]
    legend = [b for b in blocks if b.startswith("**bold**")][:1]
    return "\n\n".join([tables[0], *legend, *tables[1:]]), blocks[0]


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    TEMPLATE.with_name("experiments.md").write_text(page(given), encoding="utf-8")
