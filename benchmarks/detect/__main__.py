"""python -m benchmarks.detect [SECTION ...]: run them, print their tables, keep them in docs."""

from __future__ import annotations

import platform
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks.detect.section import Section
from slipstream.places import screen

#: Each is a module here with `run() -> Section`.
SECTIONS = (
    "false_alarms",
    "faults",
    "online",
    "multivariate",
    "estimation",
    "harm",
    "budget",
    "cost",
)
DOCS = Path(__file__).parent.parent.parent / "docs" / "detection.md"


def main(names: list[str]) -> int:
    sections = []
    for name in names or SECTIONS:
        began = time.monotonic()
        section: Section = import_module(f"benchmarks.detect.{name}").run()
        screen.print(section.table())
        for promise in section.promises:
            colour = "green" if promise.kept else "red"
            screen.print(f"[{colour}]{promise.says}: {promise.found}[/]")
        screen.print(f"[dim]{name}: {time.monotonic() - began:.0f} s[/]\n")
        sections.append(section)
    if not names:
        DOCS.write_text(_document(sections))
        screen.print(f"kept in {DOCS.relative_to(Path.cwd())}")
    return int(not all(promise.kept for section in sections for promise in section.promises))


def _document(sections: list[Section]) -> str:
    head = (
        "# How far the monitor can be trusted\n\n"
        "Printed by `make bench-detect`: every detector sees the same windows, false alarms and "
        "power are told apart, and seeds are fixed. Figures of other libraries were made once, "
        "with the versions named beside them, and are kept in `benchmarks/detect/peers/`.\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}."
    )
    return "\n\n".join([head, *(section.markdown() for section in sections)]) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
