"""The frontier holds what nothing beats, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variants.frontier import ParetoPoint, dominated_area, dominated_by, frontier, hypervolume, steps
from variants.paired import Comparison
from variants.plots import MEMORY, SIZE, CostAxis, draw_frontier

LADDER = [
    ParetoPoint("small", 0.70, 0.001, 10, 0.01),
    ParetoPoint("middle", 0.80, 0.002, 20, 0.01),
    ParetoPoint("slow", 0.79, 0.003, 30, 0.01),
    ParetoPoint("large", 0.805, 0.004, 40, 0.01),
]


@st.composite
def _points(draw: st.DrawFn) -> list[ParetoPoint]:
    """Points on a coarse grid, so that ties and equal points are common."""
    grid = st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 3))
    return [
        ParetoPoint(f"v{index}", quality / 4, latency / 10, size)
        for index, (quality, latency, size) in enumerate(draw(st.lists(grid, min_size=1, max_size=12)))
    ]


def test_a_ladder_with_a_bad_rung() -> None:
    """The slower and worse variant is dominated by name; the insignificant gain is noted."""
    found = frontier(LADDER)
    assert ("small", "middle", "large") == found.on
    assert {"slow": "middle"} == found.dominated
    assert {"large": "within 1 s.e. of middle"} == found.notes


def test_ties_are_found_row_by_row() -> None:
    """Compared on the same rows, a pair without evidence of a difference is a tie, in the notes as well."""

    def compare(first: str, second: str) -> Comparison:
        p_value = 0.4 if {first, second} == {"large", "middle"} else 0.001
        return Comparison(0.01, 0.005, 0.0, 0.02, p_value, 1000)

    found = frontier(LADDER, compare)
    assert {"large": "tied with middle (p = 0.40)"} == found.notes
    assert (("middle", "large"),) == found.ties
    assert [("large",), ("middle",), ()] == [found.tied_with(name) for name in ("middle", "large", "small")]


def test_a_smaller_variant_stays_though_slower() -> None:
    """Size counts: being the smallest is a reason to be kept."""
    assert ("fast", "tiny") == frontier([ParetoPoint("fast", 0.8, 0.1, 9), ParetoPoint("tiny", 0.8, 0.2, 3)]).on


@given(_points())
def test_the_frontier_divides_the_points(points: list[ParetoPoint]) -> None:
    """Every point is on the frontier or dominated, never both; nothing on it is dominated by anything."""
    found = frontier(points)
    on = [point for point in points if point.name in found.on]
    assert sorted(point.name for point in points) == sorted([*found.on, *found.dominated])
    assert [None] * len(on) == [dominated_by(point, points) for point in on]


@given(_points())
def test_what_dominates_is_itself_on_the_frontier(points: list[ParetoPoint]) -> None:
    """The named dominator really dominates, and is a point that nothing dominates."""
    found = frontier(points)
    named = {point.name: point for point in points}
    for loser, winner in found.dominated.items():
        assert named[winner].dominates(named[loser])
        assert winner in found.on


@given(_points(), st.data())
def test_the_order_of_points_does_not_matter(points: list[ParetoPoint], data: st.DataObject) -> None:
    """Shuffling the points gives the same frontier."""
    assert frontier(points).on == frontier(data.draw(st.permutations(points))).on


@given(_points())
def test_dominance_is_a_strict_order(points: list[ParetoPoint]) -> None:
    """No point dominates itself, no two dominate each other, and dominance is passed on."""
    for a in points:
        assert not a.dominates(a)
        for b in points:
            assert not (a.dominates(b) and b.dominates(a))
            for c in points:
                assert not (a.dominates(b) and b.dominates(c)) or a.dominates(c)


def test_hypervolume_of_two_steps() -> None:
    """Two steps below a corner give the area of two rectangles."""
    points = [ParetoPoint("a", 0.5, 1.0, 1), ParetoPoint("b", 0.75, 2.0, 1)]
    assert pytest.approx(0.5 * 3.0 + 0.25 * 2.0) == hypervolume(points, 0.0, 4.0)
    assert 0.0 == hypervolume(points, 0.8, 4.0) == hypervolume(points, 0.0, 1.0)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), min_size=1, max_size=12))
def test_the_area_is_that_of_the_cells_below_the_frontier(points: list[tuple[int, int]]) -> None:
    """On a grid, hypervolume counts the cells that some point dominates; corners are dominated by no other point."""
    cells = {(x, y) for cost, quality in points for x in range(cost, 8) for y in range(quality)}
    assert len(cells) == dominated_area(points, 0, 8)
    corners = steps(points)
    assert corners == sorted(set(corners)) == sorted(corners, key=lambda corner: corner[1])
    assert set(corners) == {
        (cost, quality)
        for cost, quality in points
        if not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points)
    }


@given(_points(), _points())
def test_more_points_never_cost_area(points: list[ParetoPoint], more: list[ParetoPoint]) -> None:
    """Hypervolume grows with every point and ignores dominated ones."""
    area = hypervolume(points, 0.0, 1.0)
    assert hypervolume([*points, *more], 0.0, 1.0) >= area - 1e-12
    fastest_or_best = [
        p for p in points if not any(q.quality >= p.quality and q.latency_s < p.latency_s for q in points)
    ]
    assert pytest.approx(area) == hypervolume(fastest_or_best, 0.0, 1.0)


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_drawing_is_a_picture_of_its_kind(tmp_path: Path, suffix: str, magic: bytes) -> None:
    """The suffix decides the format; a picture in SVG has every name as text."""
    path = tmp_path / f"frontier{suffix}"
    draw_frontier(LADDER, path, title="ladder")
    content = path.read_bytes()
    assert magic == content[: len(magic)]
    if suffix == ".svg":
        assert all(point.name.encode() in content for point in LADDER)


@pytest.mark.parametrize("axis", [SIZE, MEMORY])
def test_other_costs_can_be_drawn(tmp_path: Path, axis: CostAxis) -> None:
    """Size and memory have pictures of their own, with the metric that is measured on the other axis."""
    points = [replace(point, memory_bytes=point.size_bytes * 10, tail_s=point.latency_s * 2) for point in LADDER]
    draw_frontier(points, tmp_path / "size.svg", axis=axis, metric="agreement")
    content = (tmp_path / "size.svg").read_text(encoding="utf-8")
    assert axis.label in content
    assert "agreement (%)" in content


def test_one_point_can_be_drawn(tmp_path: Path) -> None:
    """A family of one variant has a picture as well."""
    path = tmp_path / "one.png"
    draw_frontier(LADDER[:1], path)
    assert path.stat().st_size > 0


def test_another_format_is_refused(tmp_path: Path) -> None:
    """Formats other than PNG and SVG raise `ValueError` naming the file."""
    with pytest.raises(ValueError, match=r"frontier\.gif: expected \.png or \.svg"):
        draw_frontier(LADDER, tmp_path / "frontier.gif")


def test_a_point_that_does_not_compete_is_in_nobodys_way() -> None:
    """It dominates nothing, is dominated by nothing, and is not on the frontier."""
    aside = ParetoPoint("aside", 0.9, 0.001, 10, competes=False)
    found = frontier([ParetoPoint("a", 0.8, 0.002, 20), aside])
    assert (found.on, dict(found.dominated)) == (("a",), {})
