"""Tables for a terminal and for a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Grid:
    """A table of texts; the first column names the lines."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]

    def for_terminal(self) -> Table:
        """Return the table as rich prints it."""
        table = Table(title=self.title)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", overflow="fold")
        for line in self.lines:
            table.add_row(*line)
        return table

    def for_page(self) -> str:
        """Return the table as Markdown."""
        rows = [self.columns, ["--"] * len(self.columns), *self.lines]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
