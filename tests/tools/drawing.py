"""Draws boxes, arrows and text as SVG: in light, in dark, or as the reader's system has it."""

from __future__ import annotations

from typing import Literal
from xml.sax.saxutils import escape

__all__ = ["Drawing", "Theme"]

Theme = Literal["light", "dark", "auto"]

SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', monospace"
LIGHT = {
    "page": "#ffffff", "box": "#f6f8fa", "part": "#ffffff", "line": "#8c959f", "text": "#1f2328",
    "faint": "#59636e", "arrow": "#0969da", "name": "#0550ae", "mark": "#0969da", "on": "#ffffff",
}  # fmt: skip
DARK = {
    "page": "#0d1117", "box": "#151b23", "part": "#212830", "line": "#656c76", "text": "#f0f6fc",
    "faint": "#9198a1", "arrow": "#4493f8", "name": "#79c0ff", "mark": "#1f6feb", "on": "#ffffff",
}  # fmt: skip
RULES = """\
text { font: 13px %(sans)s; fill: %(text)s; }
.title { font-weight: 600; font-size: 14px; }
.faint { fill: %(faint)s; font-size: 12px; }
.name { font: 12px %(mono)s; fill: %(name)s; }
.page { fill: %(page)s; }
.box { fill: %(box)s; stroke: %(line)s; }
.part { fill: %(part)s; stroke: %(line)s; }
.arrow { stroke: %(arrow)s; stroke-width: 1.5; fill: none; }
.life { stroke: %(line)s; stroke-dasharray: 4 4; }
.head { fill: %(arrow)s; }
.mark { fill: %(mark)s; }
.on { fill: %(on)s; font-weight: 600; font-size: 11px; }
"""


def style(theme: Theme) -> str:
    fonts = {"sans": SANS, "mono": MONO}
    light, dark = RULES % (fonts | LIGHT), RULES % (fonts | DARK)
    if theme == "auto":
        return f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"
    return dark if theme == "dark" else light


class Drawing:
    """One picture; the order of the calls is the order of the layers.

    Args:
        title: what a screen reader says instead of the picture.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size = width, height
        self.title = title
        self.parts: list[str] = []

    def rect(self, x: int, y: int, width: int, height: int, kind: str = "box") -> None:
        shape = f'x="{x}" y="{y}" width="{width}" height="{height}" rx="6"'
        self.parts.append(f'<rect class="{kind}" {shape}/>')

    def text(self, x: int, y: int, text: str, kind: str = "", anchor: str = "start") -> None:
        kinds = f' class="{kind}"' if kind else ""
        where = f'x="{x}" y="{y}" text-anchor="{anchor}"'
        self.parts.append(f"<text{kinds} {where}>{escape(text)}</text>")

    def lines(self, x: int, y: int, *texts: tuple[str, str]) -> None:
        """Write lines below each other, each with its kind."""
        for number, (text, kind) in enumerate(texts):
            self.text(x, y + 17 * number, text, kind)

    def arrow(self, *points: tuple[int, int], both: bool = False) -> None:
        path = " L".join(f"{x} {y}" for x, y in points)
        start = ' marker-start="url(#head)"' if both else ""
        self.parts.append(f'<path class="arrow" d="M{path}"{start} marker-end="url(#head)"/>')

    def life(self, x: int, top: int, bottom: int) -> None:
        self.parts.append(f'<line class="life" x1="{x}" y1="{top}" x2="{x}" y2="{bottom}"/>')

    def mark(self, x: int, y: int, number: int) -> None:
        """Number a step."""
        self.parts.append(f'<circle class="mark" cx="{x}" cy="{y}" r="9"/>')
        self.text(x, y + 4, str(number), "on", "middle")

    def svg(self, theme: Theme) -> str:
        width, height = self.size
        head = (
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse">'
            '<path class="head" d="M0 0 L8 4 L0 8 Z"/></marker>'
        )
        box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">',
            f"<title>{escape(self.title)}</title>",
            f"<style>\n{style(theme)}</style>",
            f"<defs>{head}</defs>",
            f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
            *self.parts,
            "</svg>\n",
        ])  # fmt: skip
