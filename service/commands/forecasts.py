"""What `pareto simulate` prints and draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from service.commands.failure import CommandError
from service.commands.outputs import make_folder

if TYPE_CHECKING:
    from rich.table import Table

    from loadtests.whatif import Forecast, Setup, Spread
    from loadtests.workload import Workload

_EXPENDABLE = ("escalated %", "accuracy %", "late %", "p50 ms")
"""Columns that a narrow terminal goes without, the least needed first."""


def print_table(setup: Setup, machine: str, load: str, forecasts: Sequence[Forecast], attainment: float) -> None:
    """One row for each number of replicas: means over seeds, shares of all requests with half their range.

    Accuracy and the share of escalated are of the answered.
    """
    from service.commands.fitted import is_too_wide, print_fitted
    from service.commands.tables import output
    from service.device_settings import described

    console = output()
    title = f"{setup.family.name}, {setup.policy}: {load}"
    table = _table(title, forecasts, attainment, ", ")
    if is_too_wide(console, table):
        table = _table(title, forecasts, attainment, "\n")
    print_fitted(console, table, _EXPENDABLE)
    slots = f"{setup.machine.slots} slot{'s' if setup.machine.slots > 1 else ''}"
    if setup.machine.devices:
        slots = described(setup.machine.devices)
        # Its last part is the number of threads, here that of the first device.
        machine = machine.rpartition(";")[0] or machine
    several = max(forecast.replicas for forecast in forecasts) > 1
    balanced = "; a request goes to the one with the fewest in flight" if several else ""
    notes = [f"each replica: {slots} on {machine}{balanced}"]
    if not setup.machine.ways_s:
        notes.append(
            f"HTTP as usual: {setup.machine.request_s * 1e3:.2g} ms of the event loop a request, nothing else on the "
            "machine; one that was measured: --machine"
        )
    if enough := [forecast.replicas for forecast in forecasts if forecast.attainment.mean >= attainment]:
        fewest = "1 replica answers" if min(enough) == 1 else f"{min(enough)} replicas answer"
        notes.append(f"{fewest} {attainment * 100:.4g} % of requests in time")
    for note in notes:
        console.print(note, highlight=False, markup=False)


def _table(title: str, forecasts: Sequence[Forecast], attainment: float, between: str) -> Table:
    """With so much between the variants of a row, which may be a line end."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("replicas", "in time %", "correct\nin time %", "accuracy %", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for column in ("refused %", "late %", "escalated %"):
        table.add_column(column, justify="right")
    table.add_column("answered by")
    for forecast in forecasts:
        table.add_row(
            str(forecast.replicas),
            _shares(forecast.attainment),
            _shares(forecast.effective_accuracy),
            _share(forecast.accuracy.mean),
            _milliseconds(forecast.p50_s.mean),
            _milliseconds(forecast.p99_s.mean),
            _share(forecast.refused.mean),
            _share(forecast.late.mean),
            _share(forecast.escalated.mean),
            between.join(_mix(forecast.answers)),
            style="bold" if forecast.attainment.mean >= attainment else "",
        )
    return table


def print_json(setup: Setup, machine: str, load: str, forecasts: Sequence[Forecast], attainment: float) -> None:
    """The same for programs, on the standard output; undefined numbers are null."""
    import orjson

    enough = [forecast.replicas for forecast in forecasts if forecast.attainment.mean >= attainment]
    values = {
        "family": setup.family.name,
        "revision": setup.family.revision,
        "policy": setup.policy,
        "variants": [variant.name for variant in setup.family.variants],
        "load": load,
        "profiled_on": machine,
        "simulated_machine": dataclasses.asdict(setup.machine),
        "attainment_wanted": attainment,
        "replicas_enough": min(enough, default=None),
        "forecasts": [forecast.values() for forecast in forecasts],
    }
    typer.echo(orjson.dumps(values, option=orjson.OPT_INDENT_2))


def draw(setup: Setup, forecasts: Sequence[Forecast], shown: Forecast, workload: Workload, path: Path) -> None:
    """Draw the picture; says where it is. Raises `CommandError` where it cannot be written."""
    try:
        from loadtests.whatif_plot import draw_forecasts

        make_folder(path.parent)
        draw_forecasts(forecasts, shown, workload, [variant.name for variant in setup.family.variants], path)
        typer.echo(f"drawn: {path}", err=True)
    except ModuleNotFoundError as error:
        typer.echo(f"no picture: {error.name} is not installed (`make build` installs it)", err=True)
    except OSError as error:
        raise CommandError(f"{error.filename}: cannot be written: {error.strerror}; see --out") from error


def _mix(answers: dict[str, float]) -> list[str]:
    named = [f"{name} {share:.0%}" for name, share in sorted(answers.items(), key=lambda answer: -answer[1])]
    return [name for name in named if not name.endswith(" 0%")] or ["-"]


def _share(share: float) -> str:
    return "-" if share != share else f"{share * 100:.1f}"  # noqa: PLR0124 - not a number is not itself


def _shares(spread: Spread) -> str:
    return f"{spread.mean * 100:.1f} ± {(spread.high - spread.low) * 50:.1f}"


def _milliseconds(seconds: float) -> str:
    return "-" if seconds != seconds else f"{seconds * 1e3:.3g}"  # noqa: PLR0124 - as above
