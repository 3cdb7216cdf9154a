"""SVG by hand: crisp at any size, light and dark by the page's style, small."""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from aios_platform.replay.texts import TIE

LEFT, RIGHT = 96, 164
WIDTH = 1000
NARROWEST = 12.0
WIDEST = 120.0
BLANK = 0.45
LONGEST = 16
# Far beyond any metric; sums and differences of larger floats would overflow.
FURTHEST = 1e12
# A difference that no figure on the page could show.
SMALLEST = 1e-8

Shape = Literal["circle", "triangle", "square", "diamond"]


def inert(text: str) -> str:
    """Text from outside as markup shows it: no tags, no control characters, no reversal."""
    plain = (c if c.isprintable() or c == TIE else " " if c.isspace() else "�" for c in text)
    return html.escape("".join(plain))


def short(text: str, most: int = LONGEST) -> str:
    """A text that fits, inert."""
    return inert(text if len(text) <= most else f"{text[: most - 1]}…")


@dataclass(frozen=True)
class Slots:
    """The horizontal axis that all plots share: one slot a window.

    Attributes:
        keys: Windows, oldest first.
        blank: How many at the beginning have nothing to show; they get less room.
    """

    keys: tuple[str, ...]
    blank: int = 0

    @property
    def slot(self) -> float:
        """Width of a window."""
        room = (WIDTH - LEFT - RIGHT) / max(self._slots(len(self.keys)), 1.0)
        return min(max(room, NARROWEST), WIDEST)

    @property
    def right(self) -> float:
        """Where the last window ends."""
        return self.edge(len(self.keys))

    @property
    def width(self) -> float:
        """Width of the whole drawing."""
        return max(self.right + RIGHT, WIDTH)

    def edge(self, place: int) -> float:
        """Where a window begins."""
        return LEFT + self._slots(place) * self.slot

    def _slots(self, place: int) -> float:
        """How many whole slots lie before a window."""
        blank = min(place, self.blank)
        return BLANK * blank + place - blank

    def centre(self, place: int) -> float:
        """The middle of a window."""
        return (self.edge(place) + self.edge(place + 1)) / 2

    def notches(self, y: float) -> str:
        """Short lines between the windows, where there is room for them."""
        if self.slot < 2 * NARROWEST:
            return ""
        edges = (self.edge(place) for place in range(len(self.keys) + 1))
        return "".join(line(x, y, x, y + 6, "grid") for x in edges)

    def labels(self, y: float) -> str:
        """The windows' keys below a plot; so many that they do not touch."""
        shown: list[str] = []
        end = 0.0
        # From the newest back: that one is looked for most.
        for place, key in reversed(list(enumerate(self.keys))):
            x, half = self.centre(place), 3.5 * min(len(key), LONGEST)
            if not shown or x + half < end:
                shown.append(text(x, y, short(key), anchor="middle"))
                end = x - half - 6
        return "".join(reversed(shown))


@dataclass(frozen=True)
class Scale:
    """A vertical axis.

    Attributes:
        low: Value at the bottom.
        high: Value at the top.
        top: Upper end in the drawing.
        bottom: Lower end.
    """

    low: float
    high: float
    top: float
    bottom: float

    @classmethod
    def around(cls, values: Iterable[float], top: float, bottom: float) -> "Scale":
        """A scale that shows all values, with some air."""
        known = [_near(value) for value in values]
        low, high = min(known, default=0.0), max(known, default=1.0)
        spread = high - low
        air = 0.08 * spread if spread > SMALLEST else max(0.05 * abs(high), SMALLEST)
        return cls(low - air, high + air, top, bottom)

    def y(self, value: float) -> float:
        """Where a value lies."""
        share = (_near(value) - self.low) / (self.high - self.low)
        return self.bottom - share * (self.bottom - self.top)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values to write beside the axis."""
        rough = (self.high - self.low) / most
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(n * size for n in (1, 2, 5, 10) if n * size >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [place * step for place in range(first, min(last, first + 2 * most) + 1)]

    def decimals(self, most: int = 5) -> int:
        """Decimals that tell the ticks apart."""
        ticks = self.ticks(most)
        step = ticks[1] - ticks[0] if len(ticks) > 1 else self.high - self.low
        return min(max(-math.floor(math.log10(step) + 1e-9), 0), 8)


def _near(value: float) -> float:
    return min(max(value, -FURTHEST), FURTHEST)


def drawing(name: str, title: str, description: str, width: float, height: float, body: str) -> str:
    """A whole SVG, described for those who do not see it.

    Args:
        name: Unique on the page.
        title: What it is, inert.
        description: What it shows, inert.
        width: Of the drawing.
        height: Of the drawing.
        body: Its elements.
    """
    # What is wider than the page keeps its size, and is scrolled.
    size = f' width="{width:.0f}" height="{height:.0f}"' if width > WIDTH else ""
    return (
        f'<svg class="plot" role="img" viewBox="0 0 {width:.0f} {height:.0f}"{size} '
        f'aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">{title}</title>'
        f'<desc id="{name}-desc">{description}</desc>{body}</svg>'
    )


def text(x: float, y: float, words: str, *, style: str = "", anchor: str = "") -> str:
    """Words, which are inert already."""
    more = (f' class="{style}"' if style else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def path(points: Sequence[tuple[float, float]], style: str) -> str:
    """A line through points; nothing for fewer than two."""
    if len(points) < 2:
        return ""
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{through}" fill="none" class="{style}"/>'


def box(x: float, y: float, width: float, height: float, style: str) -> str:
    """A rectangle."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
        f'height="{max(height, 0):.1f}" class="{style}"/>'
    )


def mark(shape: Shape, x: float, y: float, size: float, style: str) -> str:
    """A symbol around a point, about as large as a circle of this radius."""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" class="{style}"/>'
    if shape == "square":
        side = 0.88 * size
        return box(x - side, y - side, 2 * side, 2 * side, style)
    if shape == "triangle":
        corners = ((0, -1.2), (1.1, 0.8), (-1.1, 0.8))
    else:
        corners = ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0))  # type: ignore[assignment]
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" class="{style}"/>'


def cross(x: float, y: float, size: float, style: str) -> str:
    """An x."""
    return line(x - size, y - size, x + size, y + size, style) + line(
        x - size, y + size, x + size, y - size, style
    )


def hint(words: str, body: str) -> str:
    """Elements that tell what they are when they are pointed at; words are inert."""
    return f"<g><title>{words}</title>{body}</g>"
