"""The options that say what arrives, for every command that draws a load, and the load that they lead to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import CommandError

if TYPE_CHECKING:
    from loadtests.load import Load
    from loadtests.traces import Shape
    from loadtests.workload import SloMix

USAGE = 2
DEFAULT_PROCESS = "poisson"

Rate = Annotated[float | None, typer.Option(metavar="R", help="Mean requests per second.", show_default=False)]
Process = Annotated[
    str, typer.Option(metavar="NAME", help="How they arrive: poisson, gamma, onoff, ramp, burst, diurnal or surge.")
]
Cv2 = Annotated[
    float | None,
    typer.Option(metavar="X", help="Squared coefficient of variation of gamma and burst.", show_default="4"),
]
PeakRatio = Annotated[
    float | None, typer.Option(metavar="X", help="Highest over lowest rate where the rate changes.", show_default="7")
]
Period = Annotated[
    float | None, typer.Option(metavar="S", help="Seconds of one on and one off phase.", show_default="2")
]
Trace = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Recorded arrivals: CSV, seconds or ISO times in the first column.", show_default=False
    ),
]
TraceRate = Annotated[
    float | None, typer.Option(metavar="R", help="Rescale the recording to this mean rate.", show_default=False)
]
Mix = Annotated[
    str | None,
    typer.Option(
        "--slo-mix", metavar="MS:WEIGHT,...", help="SLOs of requests. Default: the family's.", show_default=False
    ),
]
Attainment = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of requests to answer in time: what is enough.")
]


@contextmanager
def faults_of_the_load() -> Iterator[None]:
    """What a load cannot be drawn from is a fault of the flags: a `CommandError` with the exit code of wrong usage."""
    from loadtests.traces import TraceError

    try:
        yield
    except TraceError as error:
        raise CommandError(str(error), USAGE) from error


def shape_of(process: str, cv2: float | None, peak_ratio: float | None, period_s: float | None) -> Shape | None:
    """How arrivals deviate from an even stream, None where no flag says so. Raises `CommandError` and `TraceError`."""
    from loadtests.traces import Shape

    flags = {"cv2": cv2, "peak_ratio": peak_ratio, "period_s": period_s}
    given = {name: value for name, value in flags.items() if value is not None}
    if "cv2" in given and process not in ("gamma", "burst"):
        raise CommandError(f"--cv2 does not change {process} arrivals: add --process gamma", USAGE)
    return Shape(**given) if given else None


def load_of(
    mix: SloMix,
    duration_s: float,
    rate: float | None,
    process: str,
    shape: Shape | None,
    trace: Path | None,
    trace_rate: float | None,
) -> Load:
    """The load that the flags describe. Raises `CommandError` where they contradict each other."""
    from loadtests.load import Load
    from loadtests.traces import Shape

    if trace is None and rate is None:
        raise CommandError("say what arrives: --rate R, or --trace FILE.csv", USAGE)
    if trace is not None and (rate is not None or shape is not None or process != DEFAULT_PROCESS):
        raise CommandError(
            "--trace brings its own arrivals: give --trace-rate to rescale them, no other process", USAGE
        )
    if trace is None and trace_rate is not None:
        raise CommandError("--trace-rate rescales a recording: give --trace FILE.csv, or --rate", USAGE)
    return Load(mix, duration_s, rate if trace is None else trace_rate, process, shape or Shape(), trace)


def check_attainment(attainment: float) -> None:
    """Raise `CommandError` for what is no share."""
    if not 0.0 < attainment <= 1.0:
        raise CommandError(f"--attainment: expected a share over 0 and at most 1, got {attainment:g}", USAGE)
