"""What `pareto profile` and `pareto frontier` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from service.commands.fitted import print_fitted

if TYPE_CHECKING:
    from variants.manifest import FamilyManifest, Invariance
    from variants.ondevice.records import Export
    from variants.profiles import Executors, FamilyProfile
    from variants.report.contents import Report

_WIDTH_OF_A_FILE = 180
_EXPENDABLE = ("tied with", "MMACs", "peak MB", "own MB", "loaded")
"""Columns of the frontier that a narrow terminal goes without, the least needed first."""
_EXPENDABLE_BESIDE = (
    "training MB",
    "labelled rows",
    "training s",
    "macro P, R, F1 %",
    "parameters",
    "logits off",
    "load ms",
    "J per 1,000",
    "in any batch",
)


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
    for column in (f"{report.metric} %", "ms, 1 row", "MB", "own MB", "peak MB", "MMACs"):
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
            _megabytes(line.own_bytes),
            _megabytes(line.footprint.peak_bytes) if line.footprint else "",
            f"{line.macs / 1e6:.3g}" if line.macs is not None else "",
            line.verdict,
            ", ".join(line.ties),
            "by default" if line.variant.load_by_default else "where named",
            style="" if point.name in report.found.on else "dim",
        )
    console = output()
    print_fitted(console, table, _EXPENDABLE)
    if report.compared_rows:
        console.print(f"tied: no evidence of a difference on the same {report.compared_rows}", highlight=False)
    print_fitted(console, _beside(report), _EXPENDABLE_BESIDE)
    if report.ports.lines:
        _print_ports(console, report)
    if report.exports:
        console.print(_exports(report.exports))
    console.print(
        f"J per 1,000 answers: measured seconds of the processor times {report.watts_per_core:g} watts, an estimate; "
        f"logits off: by at most so much from the original model's",
        highlight=False,
    )
    if report.hypervolumes:
        shares = ", ".join(f"{plane} {share:.3f}" for plane, share in report.hypervolumes.items())
        console.print(f"hypervolume, a share of the box from guessing to perfection: {shares}", highlight=False)


def _print_ports(console: Console, report: Report) -> None:
    """Which runtime wins where, and whether ports are the same networks."""
    ports = report.ports
    table = Table(title="fastest runtime, and how many times as long onnxruntime takes", title_justify="left")
    for column in ("variant", *(f"batch {batch}" for batch in ports.batches)):
        table.add_column(column)
    for contest in ports.contests:
        wins = {win.batch: f"{win.runtime} x{win.ratio:.2f}" for win in contest.wins}
        table.add_row(contest.variant, *(wins.get(batch, "-") for batch in ports.batches))
    console.print(table)
    table = Table(title="the same networks on other runtimes", title_justify="left")
    table.add_column("variant")
    for column in ("relative error", "other labels %", f"{report.metric}, points better [95 %]", "in any batch"):
        table.add_column(column, justify="right")
    for line in ports.lines:
        table.add_row(
            line.variant.name,
            f"{line.parity.max_relative_error:.1e}",
            f"{line.parity.label_flips * 100:.1f}",
            str(line.quality or "-"),
            line.variant.invariance.in_words(report.manifest.batch_tolerance),
        )
    console.print(table)


def _exports(exports: Sequence[Export]) -> Table:
    """What was exported for devices, beside the same variants as they are served."""
    table = Table(title="files for devices: one row on one thread of this kind of machine", title_justify="left")
    table.add_column("variant")
    table.add_column("for")
    for column in (
        "tokens",
        "MB",
        "ms",
        "ms as served",
        "memory MB",
        "accuracy %",
        "as served",
        "points better [95 %]",
    ):
        table.add_column(column, justify="right")
    for one in exports:
        low, high = (100 * bound for bound in one.interval)
        table.add_row(
            one.variant,
            one.target,
            f"{one.tokens}",
            _megabytes(one.size_bytes),
            f"{one.median_s * 1e3:.3g}",
            f"{one.server_median_s * 1e3:.3g}",
            _megabytes(one.memory_bytes),
            f"{one.accuracy * 100:.1f}",
            f"{one.server_accuracy * 100:.1f}",
            f"{one.difference * 100:+.1f} [{low:+.1f}, {high:+.1f}]{', a tie' if one.tied else ''}",
        )
    return table


def _beside(report: Report) -> Table:
    """What else was measured of every variant; `-` where it was not."""
    middle = len(report.manifest.sizes) // 2
    table = Table(title="measured besides", title_justify="left")
    table.add_column("variant")
    for column in (
        "parameters",
        "macro P, R, F1 %",
        "in any batch",
        "logits off",
        "p95 / p99 ms",
        "load ms",
        "J per 1,000",
    ):
        table.add_column(column, justify="right")
    for column in ("training s", "labelled rows", "training MB"):
        table.add_column(column, justify="right")
    for line in report.lines:
        quality, training, at = line.variant.quality, line.variant.training, line.table
        macro = [quality.precision, quality.recall, quality.f1]
        p99_s = at.p99_s[middle][0] if at.p99_s else None
        joules = line.footprint.energy_j(report.watts_per_core)[0] if line.footprint else None
        table.add_row(
            line.point.name,
            f"{line.variant.parameters:,}",
            ", ".join(_known(None if value is None else 100 * value) for value in macro),
            _in_any_batch(line.variant.invariance, report.manifest.batch_tolerance),
            _known(line.logit_difference),
            f"{at.tail_s[middle][0] * 1e3:.3g} / {_known(None if p99_s is None else p99_s * 1e3)}",
            _known(line.footprint.load_s * 1e3 if line.footprint else None),
            _known(joules),
            _known(training.seconds if training else None),
            _known(training.labelled_rows if training else None),
            _known(training.peak_memory_bytes / 1e6 if training and training.peak_memory_bytes else None),
        )
    return table


def _in_any_batch(found: Invariance, tolerance: float) -> str:
    """Whether answers depend on the batch, and how far they move where they do."""
    words, moved = found.in_words(tolerance), f"p by {found.max_probability_delta:.2g}"
    if words == "no":
        return f"no: {100 * found.label_flips:.1f} % of labels, {moved}"
    return words if found.invariant else f"{words}: {moved}"


def _known(value: float | None) -> str:
    """Three digits, or `-`; counts of rows in full."""
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3g}"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.3g}"
