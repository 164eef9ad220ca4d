"""`pareto simulate`: how a load would be answered here, before it comes."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import CommandError, faults_of_the_repository
from service.commands.heartbeat import heartbeat
from service.commands.loads import (
    DEFAULT_PROCESS,
    USAGE,
    Attainment,
    Cv2,
    Mix,
    PeakRatio,
    Period,
    Process,
    Rate,
    Trace,
    TraceRate,
    check_attainment,
    faults_of_the_load,
    load_of,
    shape_of,
)
from service.commands.options import Config, Models, settings_from
from service.commands.outputs import check_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.whatif import Forecast, Setup
    from loadtests.workload import Workload

PICTURES = (".png", ".svg")
AUTO = "auto"


def simulate(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="A family in the repository.", show_default=False)],
    rate: Rate = None,
    process: Process = DEFAULT_PROCESS,
    cv2: Cv2 = None,
    peak_ratio: PeakRatio = None,
    period: Period = None,
    duration: Annotated[float, typer.Option(metavar="S", help="Seconds of arrivals.")] = 20.0,
    trace: Trace = None,
    trace_rate: TraceRate = None,
    slo_mix: Mix = None,
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who answers (setting `policy`).", show_default=False)
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(metavar="N", help="Batches at a time on a replica (setting `slots`).", show_default=False),
    ] = None,
    stages: Annotated[
        str | None, typer.Option(metavar="on|off|auto", help="Serve stages (setting `stages`).", show_default=False)
    ] = None,
    variants: Annotated[
        str | None, typer.Option(metavar="A,B", help="Variants to load. Default: as serving does.", show_default=False)
    ] = None,
    replicas: Annotated[
        str, typer.Option(metavar="N|N..M|auto", help="Replicas; `auto` finds the fewest that are enough.")
    ] = "1",
    attainment: Attainment = 0.99,
    seeds: Annotated[int, typer.Option(metavar="N", help="Loads to draw; results are their mean.")] = 3,
    machine: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Results of a benchmark that measured this machine.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the forecast as .png or .svg.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    models: Models = None,
    config: Config = None,
) -> None:
    """Predict how a load would be answered: in time, how accurately, by which variants, on how many replicas.

    The scheduler that serves decides, in virtual time, with this machine's profile and the family's labelled samples.
    Each replica is a machine like this one; a request goes to the one with the fewest in flight.
    """
    settings = settings_from(config, models=models, policy=policy, slots=slots, stages=stages)
    from service.commands.simulated import setup_of

    counts = _counts(replicas)
    _check(attainment=attainment, seeds=seeds, out=out)
    from loadtests.workload import SloMix

    with faults_of_the_repository(), faults_of_the_load():
        setup, profiled_on = setup_of(settings, family, variants.split(",") if variants else None, machine)
        slo_ms = setup.default_slo_s * 1e3
        shape = shape_of(process, cv2, peak_ratio, period)
        mix = SloMix.parse(slo_mix or f"{slo_ms:g}")
        load = load_of(mix, duration, rate, process, shape, trace, trace_rate)
        workloads = [load.draw(len(setup.samples), seed) for seed in range(seeds)]
    forecasts = _forecasts(setup, workloads, counts, attainment)
    reached = next((forecast for forecast in forecasts if forecast.attainment.mean >= attainment), None)
    from service.commands import forecasts as show

    show_all = show.print_json if as_json else show.print_table
    show_all(setup, profiled_on, workloads[0].description, forecasts, attainment)
    if out is not None:
        show.draw(setup, forecasts, reached or forecasts[-1], workloads[0], out)
    if replicas == AUTO and reached is None:
        last = forecasts[-1]
        raise CommandError(
            f"not even {last.replicas} replicas answer {attainment:.1%} in time, but {last.attainment.mean:.1%}: "
            "compare the SLOs with `pareto profile`"
        )


def _counts(text: str) -> range | None:
    """The numbers of replicas to try; None where they are to be searched."""
    if text == AUTO:
        return None
    found = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?", text)
    if found:
        first, last = int(found[1]), int(found[2] or found[1])
        if 1 <= first <= last:
            return range(first, last + 1)
    raise CommandError(f"--replicas: expected a number, a range like 1..4, or auto, got {text!r}", USAGE)


def _check(*, attainment: float, seeds: int, out: Path | None) -> None:
    check_attainment(attainment)
    if seeds < 1:
        raise CommandError(f"--seeds: expected at least 1, got {seeds}", USAGE)
    if out is not None:
        if out.suffix not in PICTURES:
            raise CommandError(f"--out: expected a file that ends in .png or .svg, got {out}", USAGE)
        check_file(out)


def _forecasts(setup: Setup, workloads: Sequence[Workload], counts: range | None, attainment: float) -> list[Forecast]:
    from rich.console import Console
    from rich.progress import Progress

    from loadtests.whatif import fewest, predict

    console = Console(stderr=True)
    total = len(counts) * len(workloads) if counts is not None else None
    runs = 0
    with ExitStack() as stack:
        bar = stack.enter_context(Progress(console=console, transient=True, disable=not console.is_terminal))
        task = bar.add_task(f"simulating {setup.family.name}", total=total)
        if not console.is_terminal:
            of = f" of {total}" if total is not None else ""
            what = f"simulating {setup.family.name}, {len(workloads[0]):,} requests a run"
            stack.enter_context(heartbeat(lambda elapsed_s: f"{what}: {runs}{of} done after {elapsed_s:.0f} s"))

        def done() -> None:
            nonlocal runs
            runs += 1
            bar.advance(task)

        if counts is None:
            return fewest(setup, workloads, attainment, done)
        return [predict(setup, workloads, replicas, done) for replicas in counts]
