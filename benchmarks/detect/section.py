"""What one part of the benchmark found: a table, and the promises that it keeps or breaks."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Promise:
    """A figure that was promised. `found` says what was measured, in words and numbers."""

    says: str
    found: str
    kept: bool


@dataclass(frozen=True)
class Section:
    """`about` says in a few sentences what was measured and how; cells are ready to print."""

    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    promises: tuple[Promise, ...] = ()

    def table(self) -> Table:
        table = Table(*self.columns, title=self.title)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", self.about, ""]
        lines += [_row(self.columns), _row(("---",) * len(self.columns)), *map(_row, self.rows)]
        if self.promises:
            lines += ["", _row(("promised", "found", "")), _row(("---",) * 3)]
            lines += [_row((p.says, p.found, _word(p.kept))) for p in self.promises]
        return "\n".join(lines)


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _word(kept: bool) -> str:
    return "kept" if kept else "**broken**"
