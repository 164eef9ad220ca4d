"""Charts as SVG that takes its colours from the page: lines, bands, stacks, points, and what a moment's values were.

All marks carry classes and no colours, so that one drawing fits light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

from loadtests.harness.page.scales import Scale

WIDTH, HEIGHT = 420.0, 210.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 10.0, 10.0, 34.0
COLOURS = 10
"""Classes `c0` to `c9` are there; more names begin anew."""

Values = Sequence[float | None]
"""None is a gap."""


@dataclass
class Chart:
    """One drawing. `title` is for those who do not see it; `across` says what the horizontal scale is."""

    title: str
    x: Scale
    y: Scale
    across: str = "time (s)"
    _parts: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str]] = field(default_factory=list)
    _over: list[str] = field(default_factory=list)

    def line(self, xs: Sequence[float], ys: Values, kind: str, name: str = "") -> None:
        """A line of a class; one with a name is explained below the chart."""
        self._parts.append(f'<path class="line {kind}" d="{self._path(xs, ys)}"/>')
        self._explain(name, kind)

    def stairs(self, edges: Sequence[float], ys: Values, kind: str, name: str = "") -> None:
        """A line of steps between edges (one more than there are values)."""
        xs = [edge for pair in pairwise(edges) for edge in pair]
        self.line(xs, [value for value in ys for _ in range(2)], kind, name)

    def band(self, xs: Sequence[float], low: Values, high: Values, kind: str, name: str = "") -> None:
        """The area between two lines."""
        there = [place for place, pair in enumerate(zip(low, high, strict=True)) if None not in pair]
        if there:
            up = [self._at(xs[place], high[place] or 0.0) for place in there]
            down = [self._at(xs[place], low[place] or 0.0) for place in reversed(there)]
            self._parts.append(f'<polygon class="area {kind}" points="{" ".join((*up, *down))}"/>')
        self._explain(name, kind)

    def stack(self, edges: Sequence[float], layers: Mapping[str, Sequence[float]], first: int = 0) -> None:
        """Areas of steps on top of each other, in order; each has a name and a colour, from number `first` on."""
        xs = [edge for pair in pairwise(edges) for edge in pair]
        base = [0.0] * len(xs)
        for place, (name, values) in enumerate(layers.items()):
            top = [low + value for low, value in zip(base, [v for v in values for _ in range(2)], strict=True)]
            self.band(xs, base, top, f"c{(first + place) % COLOURS}", name)
            base = top

    def rule(self, value: float, kind: str, name: str = "") -> None:
        """A level that matters."""
        if self.y.low <= value <= self.y.high:
            y = self._y(value)
            self._parts.append(f'<line class="rule {kind}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
            self._explain(name, f"rule {kind}")

    def shade(self, begin: float, end: float, name: str) -> None:
        """A stretch of the horizontal scale that is set off."""
        left, right, height = self._x(begin), self._x(end), HEIGHT - _TOP - _BOTTOM
        stretch = f'x="{left}" y="{_TOP}" width="{right - left:.1f}" height="{height}"'
        self._parts.insert(0, f'<rect class="shade" {stretch}/>')
        self._explain(name, "shade")

    def point(self, x: float, y: float, low: float, high: float, kind: str, said: str) -> None:
        """A point with its interval; `said` is shown to who points at it."""
        cx, top, bottom = self._x(x), self._y(high), self._y(low)
        self._parts.append(f'<line class="whisker {kind}" x1="{cx}" x2="{cx}" y1="{top}" y2="{bottom}"/>')
        self._over.append(
            f'<circle class="point {kind}" cx="{cx}" cy="{self._y(y)}" r="4"><title>{escape(said)}</title></circle>'
        )

    def explain(self, name: str, kind: str) -> None:
        """A line of the legend."""
        self._explain(name, kind)

    def tell(self, edges: Sequence[float], texts: Sequence[str]) -> None:
        """What is shown to who points at a stretch between two edges."""
        height = HEIGHT - _TOP - _BOTTOM
        for (left, right), text in zip(pairwise(edges), texts, strict=True):
            x = self._x(left)
            self._over.append(
                f'<rect class="tell" x="{x}" y="{_TOP}" width="{max(0.5, self._x(right) - x):.1f}" height="{height}">'
                f"<title>{escape(text)}</title></rect>"
            )

    def svg(self) -> Markup:
        """The drawing and its legend, as markup."""
        legend = "".join(
            f'<li><span class="swatch {kind}"></span>{escape(name)}</li>' for name, kind in dict.fromkeys(self._legend)
        )
        drawn = "".join((*self._frame(), *self._parts, *self._over))
        return Markup(  # noqa: S704 - names are escaped where they enter
            f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(self.title)}">{drawn}</svg>'
            + (f'<ul class="legend">{legend}</ul>' if legend else "")
        )

    def _frame(self) -> list[str]:
        frame = []
        for value, text in self.y.marks:
            y = self._y(value)
            frame.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
            frame.append(f'<text class="axis" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        bottom = HEIGHT - _BOTTOM
        for value, text in self.x.marks:
            x = self._x(value)
            frame.append(f'<text class="axis" x="{x}" y="{bottom + 15}" text-anchor="middle">{escape(text)}</text>')
        frame.append(
            f'<text class="axis" x="{WIDTH - _RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(self.across)}</text>'
        )
        return frame

    def _explain(self, name: str, kind: str) -> None:
        if name:
            self._legend.append((name, kind))

    def _path(self, xs: Sequence[float], ys: Values) -> str:
        path, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if y is None or not math.isfinite(y):
                pen = "M"
                continue
            path.append(f"{pen}{self._at(x, y)}")
            pen = "L"
        return "".join(path)

    def _at(self, x: float, y: float) -> str:
        return f"{self._x(x)},{self._y(y)}"

    def _x(self, value: float) -> float:
        return round(_LEFT + self.x.share(value) * (WIDTH - _LEFT - _RIGHT), 1)

    def _y(self, value: float) -> float:
        return round(HEIGHT - _BOTTOM - self.y.share(value) * (HEIGHT - _TOP - _BOTTOM), 1)
