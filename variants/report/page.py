"""The report as HTML: one file that loads nothing, runs nothing, and fits light, dark and narrow screens.

Everything that comes from a family (names, notes, lineage, licences) is escaped by the template engine; the only markup
let through is that of the pictures, which escape names themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from variants.report.contents import Report, share_of_the_box
from variants.report.style import page_environment

TEMPLATE = "page.html.jinja"


def render(report: Report, pictures: Mapping[str, str], cascades: str = "", *, now: datetime | None = None) -> str:
    """Return the page. `pictures` has an SVG for each plane, in order, `cascades` that of the cascades."""
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {"points": str, "zip": zip}
    template = environment.get_template(TEMPLATE)
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
