"""What `pareto profile` and `pareto frontier` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from variants.manifest import FamilyManifest
    from variants.profiles import Executors, FamilyProfile
    from variants.report.contents import Report

_WIDTH_OF_A_FILE = 180


def output() -> Console:
    """The standard output; where that is no terminal, wide enough that nothing is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_A_FILE)


def print_profile(manifest: FamilyManifest, profile: FamilyProfile) -> None:
    """Median and 95th percentile of every variant, for the batches of the middle size class."""
    middle = len(manifest.sizes) // 2
    rows = f", rows of up to {manifest.sizes[middle]} tokens" if len(manifest.sizes) > 1 else ""
    batches = next(iter(profile.variants.values())).batches
    table = Table(title=f"{manifest.name}: median / p95 milliseconds of a batch{rows}", title_justify="left")
    table.add_column("variant")
    for batch in batches:
        table.add_column(f"{batch}", justify="right")
    table.add_column("load ms", justify="right")
    table.add_column("MB", justify="right")
    for name, measured in sorted(profile.variants.items(), key=lambda entry: entry[1].median_s[middle][0]):
        cells = zip(measured.median_s[middle], measured.tail_s[middle], strict=True)
        seconds = [f"{median * 1e3:.3g} / {tail * 1e3:.3g}" for median, tail in cells]
        table.add_row(name, *seconds, f"{measured.load_s * 1e3:.0f}", _megabytes(measured.memory_bytes))
    console = output()
    console.print(table)
    if profile.stages:
        console.print(_stages(profile, middle))
    if profile.executors is not None:
        _print_executors(console, profile.executors)
    console.print(f"{profile.mode} profile of {profile.machine}", highlight=False, markup=False)


def _stages(profile: FamilyProfile, middle: int) -> Table:
    """Median of every stage, in the order of the chains."""
    batches = next(iter(profile.stages.values())).batches
    table = Table(title="stages: median ms", title_justify="left")
    table.add_column("stage")
    for batch in batches:
        table.add_column(f"{batch}", justify="right")
    for name, measured in profile.stages.items():
        table.add_row(name, *(f"{seconds * 1e3:.3g}" for seconds in measured.median_s[middle]))
    return table


def _print_executors(console: Console, executors: Executors) -> None:
    """Rows a second of both forms, and which to choose."""
    cores = executors.cores
    table = Table(title=f"rows a second on {cores} cores", title_justify="left")
    for column in ("variant", "batch", f"{cores} slots of 1 thread", f"1 slot of {cores} threads", "ratio"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for cell in executors.cells:
        table.add_row(
            cell.variant,
            f"{cell.batch}",
            f"{cell.slots_rows_s:.4g}",
            f"{cell.threads_rows_s:.4g}",
            f"{cell.ratio:.2f}",
        )
    console.print(table)
    least, most = executors.spread
    console.print(
        f"slots serve {executors.ratio:.2f} times as many rows (rounds {least:.2f} to {most:.2f}): "
        f"slots = {executors.recommended_slots}, threads_per_slot = {executors.recommended_threads}",
        highlight=False,
        markup=False,
    )


def print_frontier(report: Report) -> None:
    """Every variant, fastest first, with what it costs, what it gives and whether it is worth having."""
    manifest = report.manifest
    table = Table(title=f"{manifest.name}, revision {manifest.revision}", title_justify="left")
    table.add_column("variant")
    for column in (f"{report.metric} %", "ms, 1 row", "MB", "peak MB", "MMACs"):
        table.add_column(column, justify="right")
    for column in ("Pareto frontier", "tied with", "loaded"):
        table.add_column(column)
    for line in report.lines:
        point = line.point
        table.add_row(
            point.name,
            f"{point.quality * 100:.1f} ± {point.standard_error * 100:.1f}",
            f"{point.latency_s * 1e3:.3g}",
            _megabytes(point.size_bytes),
            _megabytes(line.footprint.peak_bytes) if line.footprint else "",
            f"{line.macs / 1e6:.3g}" if line.macs is not None else "",
            line.verdict,
            ", ".join(line.ties),
            "by default" if line.variant.load_by_default else "where named",
            style="" if point.name in report.found.on else "dim",
        )
    console = output()
    console.print(table)
    if report.compared_rows:
        console.print(f"tied: no evidence of a difference on the same {report.compared_rows}", highlight=False)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.3g}"
