"""A few shapes as SVG, readable on light and dark: each drawing stands on a ground of its own."""

from dataclasses import dataclass, field
from html import escape

#: kind -> fill, line and text on light; the same on dark.
COLOURS = {
    "plain": ("#f6f8fa", "#8c959f", "#1f2328", "#21262d", "#6e7681", "#e6edf3"),
    "shared": ("#ddf4ff", "#0969da", "#0a3069", "#0c2d4d", "#58a6ff", "#cae8ff"),
    "one": ("#dafbe1", "#1a7f37", "#0a3d1a", "#12331d", "#3fb950", "#c4f1cf"),
    "two": ("#fff1e5", "#bc4c00", "#5c2400", "#3d2110", "#f0883e", "#ffdfb6"),
    "three": ("#fbefff", "#8250df", "#3e1f79", "#2b1d45", "#bc8cff", "#eddeff"),
}
GROUND, INK, SOFT = ("#ffffff", "#0d1117"), ("#1f2328", "#e6edf3"), ("#59636e", "#9198a1")
LINE = 17


@dataclass
class Drawing:
    """Args: width, height: in pixels. title: what it shows, for readers that hear it."""

    width: int
    height: int
    title: str
    parts: list[str] = field(default_factory=list)

    def box(self, place: tuple[int, int, int, int], text: str, kind: str = "plain") -> None:
        """Add a box of x, y, width and height with lines of text in its middle."""
        x, y, width, height = place
        self.parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
        )
        lines = text.split("\n")
        top = y + height / 2 - LINE * (len(lines) - 1) / 2 + 4.5
        for number, line in enumerate(lines):
            self._text(x + width / 2, top + LINE * number, line, f"on-{kind}", "middle")

    def words(self, x: int, y: int, text: str, anchor: str = "start") -> None:
        """Add lines of text beside the shapes; y is the first one's foot."""
        for number, line in enumerate(text.split("\n")):
            self._text(x, y + LINE * number, line, "soft", anchor)

    def arrow(self, *points: tuple[int, int]) -> None:
        """Add a line through the points with a head at its end."""
        path = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(f'<polyline class="arrow" points="{path}" marker-end="url(#head)"/>')

    def cells(self, corner: tuple[int, int], size: int, filled: list[tuple[int, int]]) -> None:
        """Add a square of 8 x 8 cells, each `size` wide, with some of them filled."""
        x, y = corner
        side = 8 * size
        self.parts.append(
            f'<rect class="plain" x="{x}" y="{y}" width="{side}" height="{side}" rx="2"/>'
        )
        for row, column in filled:
            place = f'x="{x + column * size}" y="{y + row * size}"'
            self.parts.append(f'<rect class="cell" {place} width="{size}" height="{size}"/>')

    def _text(self, x: float, y: float, line: str, kind: str, anchor: str) -> None:
        self.parts.append(
            f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(line)}</text>'
        )

    def svg(self) -> str:
        """Return the file's text."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" role="img"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} height="{self.height}">',
                f"<title>{escape(self.title)}</title>",
                f"<style>{_style(0)}",
                f"@media (prefers-color-scheme: dark) {{{_style(1)}}}</style>",
                '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
                ' markerHeight="7" orient="auto"><path class="head" d="M0 0L8 4L0 8z"/></marker>'
                "</defs>",
                f'<rect class="ground" width="{self.width}" height="{self.height}" rx="8"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def _style(shade: int) -> str:
    rules = [
        "text{font:13px system-ui,sans-serif}" if shade == 0 else "",
        f".ground{{fill:{GROUND[shade]}}}",
        f".soft{{fill:{SOFT[shade]}}}",
        f".arrow{{fill:none;stroke:{SOFT[shade]};stroke-width:1.5}}.head{{fill:{SOFT[shade]}}}",
        f".cell{{fill:{COLOURS['one'][1 + 3 * shade]}}}",
    ]
    for kind, colours in COLOURS.items():
        fill, line, text = colours[3 * shade : 3 * shade + 3]
        rules.append(f".{kind}{{fill:{fill};stroke:{line}}}.on-{kind}{{fill:{text}}}")
    return "".join(rules)
