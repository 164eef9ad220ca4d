"""The report as HTML: one file that loads nothing, runs nothing, and fits light, dark and narrow screens.

Everything that comes from a family (names, notes, lineage, licences) is escaped by the template engine; the only markup
let through is that of the pictures, which escape names themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from variants.paired import Comparison
from variants.report.contents import Report, share_of_the_box

TEMPLATE = "page.html.jinja"
UNKNOWN = "-"


def render(report: Report, pictures: Mapping[str, str], cascades: str = "", *, now: datetime | None = None) -> str:
    """Return the page. `pictures` has an SVG for each plane, in order, `cascades` that of the cascades."""
    template = _environment().get_template(TEMPLATE)
    return template.render(
        report=report,
        planes=pictures,
        cascades=cascades,
        cascade_volumes=_cascade_volumes(report),
        now=now or datetime.now(UTC),
    )


def _cascade_volumes(report: Report) -> tuple[float, float] | None:
    """Return the hypervolume of the variants alone, and with cascades, on the same rows and in the same box."""
    if report.curve is None:
        return None
    guessing = 1.0 / len(report.manifest.labels)
    singles = [(point.latency_s, point.quality) for point in report.curve.singles]
    both = [*singles, *((point.latency_s, point.quality) for point in report.curve.cascades)]
    dearest = max(cost for cost, _ in singles)
    return share_of_the_box(singles, guessing, dearest), share_of_the_box(both, guessing, dearest)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "ms": milliseconds,
        "mb": megabytes,
        "count": count,
        "points": points_gained,
        "number": number,
    }
    return environment


def percent(fraction: float | None, error: float | None = None) -> str:
    """Say a fraction in percent, with its standard error where it is known."""
    if fraction is None:
        return UNKNOWN
    return f"{fraction * 100:.1f}" + (f" ± {error * 100:.1f}" if error is not None else "")


def milliseconds(seconds: float | None) -> str:
    """Say seconds in milliseconds, three digits."""
    return UNKNOWN if seconds is None else f"{seconds * 1e3:.3g}"


def megabytes(size_bytes: int | None) -> str:
    """Say bytes in millions, three digits."""
    return UNKNOWN if size_bytes is None else f"{size_bytes / 1e6:.3g}"


def count(value: int | None) -> str:
    """Say a count with a thousand, million or thousand millions as its unit."""
    if value is None:
        return UNKNOWN
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)


def number(value: float | None) -> str:
    """Say a number with three digits."""
    return UNKNOWN if value is None else f"{value:.3g}"


def points_gained(comparison: Comparison) -> str:
    """Say a difference in percentage points with its 95 % interval; a tie is called one."""
    said = f"{comparison.difference * 100:+.1f} [{comparison.low * 100:+.1f}, {comparison.high * 100:+.1f}]"
    return f"{said}, a tie" if comparison.tied else said
