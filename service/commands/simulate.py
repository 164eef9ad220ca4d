"""`pareto simulate`: how a load would be answered here, before it comes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import CommandError, faults_of_the_repository
from service.commands.options import Config, Models, settings_from

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtests.whatif import Forecast, Load, Setup
    from loadtests.workload import Workload

PICTURES = (".png", ".svg")
AUTO = "auto"
USAGE = 2


def simulate(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="A family in the repository.", show_default=False)],
    rate: Annotated[
        float | None, typer.Option(metavar="R", help="Mean requests per second.", show_default=False)
    ] = None,
    process: Annotated[
        str, typer.Option(metavar="NAME", help="How they arrive: poisson, gamma, onoff, ramp, burst, diurnal or surge.")
    ] = "poisson",
    cv2: Annotated[
        float | None,
        typer.Option(metavar="X", help="Squared coefficient of variation of gamma and burst.", show_default="4"),
    ] = None,
    peak_ratio: Annotated[
        float | None,
        typer.Option(metavar="X", help="Highest over lowest rate where the rate changes.", show_default="7"),
    ] = None,
    period: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds of one on and one off phase.", show_default="2")
    ] = None,
    duration: Annotated[float, typer.Option(metavar="S", help="Seconds of arrivals.")] = 20.0,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Recorded arrivals: CSV, seconds or ISO times in the first column.", show_default=False
        ),
    ] = None,
    trace_rate: Annotated[
        float | None,
        typer.Option(metavar="R", help="Rescale the recording to this mean rate.", show_default=False),
    ] = None,
    slo_mix: Annotated[
        str | None,
        typer.Option(metavar="MS:WEIGHT,...", help="SLOs of requests. Default: the family's.", show_default=False),
    ] = None,
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
    attainment: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of requests to answer in time: what is enough.")
    ] = 0.99,
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
    Each replica is a machine like this one; requests are dealt out to replicas in turn.
    """
    settings = settings_from(config, models=models, policy=policy, slots=slots, stages=stages)
    from service.commands.simulated import setup_of

    counts = _counts(replicas)
    _check(attainment=attainment, seeds=seeds, out=out)
    shape = {"cv2": cv2, "peak_ratio": peak_ratio, "period_s": period}
    with faults_of_the_repository(), _usage():
        setup, profiled_on = setup_of(settings, family, variants.split(",") if variants else None, machine)
        slo_ms = setup.default_slo_s * 1e3
        load = _load(slo_mix or f"{slo_ms:g}", duration, rate, process, shape, trace, trace_rate)
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
    if not 0.0 < attainment <= 1.0:
        raise CommandError(f"--attainment: expected a share over 0 and at most 1, got {attainment:g}", USAGE)
    if seeds < 1:
        raise CommandError(f"--seeds: expected at least 1, got {seeds}", USAGE)
    if out is not None and out.suffix not in PICTURES:
        raise CommandError(f"--out: expected a file that ends in .png or .svg, got {out}", USAGE)


@contextmanager
def _usage() -> Iterator[None]:
    """What a load cannot be drawn from is a fault of the flags."""
    from loadtests.traces import TraceError

    try:
        yield
    except TraceError as error:
        raise CommandError(str(error), USAGE) from error


def _load(
    slo_mix: str,
    duration_s: float,
    rate: float | None,
    process: str,
    shape: dict[str, float | None],
    trace: Path | None,
    trace_rate: float | None,
) -> Load:
    from loadtests.traces import Shape
    from loadtests.whatif import Load
    from loadtests.workload import SloMix

    given = {name: value for name, value in shape.items() if value is not None}
    if trace is None and rate is None:
        raise CommandError("say what arrives: --rate R, or --trace FILE.csv", USAGE)
    if trace is not None and (rate is not None or given or process != "poisson"):
        raise CommandError(
            "--trace brings its own arrivals: give --trace-rate to rescale them, no other process", USAGE
        )
    if trace is None and trace_rate is not None:
        raise CommandError("--trace-rate rescales a recording: give --trace FILE.csv, or --rate", USAGE)
    if "cv2" in given and process not in ("gamma", "burst"):
        raise CommandError(f"--cv2 does not change {process} arrivals: add --process gamma", USAGE)
    mix = SloMix.parse(slo_mix)
    return Load(mix, duration_s, rate if trace is None else trace_rate, process, Shape(**given), trace)


def _forecasts(setup: Setup, workloads: Sequence[Workload], counts: range | None, attainment: float) -> list[Forecast]:
    from rich.console import Console
    from rich.progress import Progress

    from loadtests.whatif import fewest, predict

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        total = len(counts) * len(workloads) if counts is not None else None
        task = bar.add_task(f"simulating {setup.family.name}", total=total)
        done: Callable[[], None] = lambda: bar.advance(task)  # noqa: E731 - shorter than a function of one line
        if counts is None:
            return fewest(setup, workloads, attainment, done)
        return [predict(setup, workloads, replicas, done) for replicas in counts]
