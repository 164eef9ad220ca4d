"""`pareto demo`: the gateway, a day of traffic in two minutes, and the page that shows what it makes of it."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import threading
import time
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.build import DEFAULT_FAMILY, build_then_begin_anew
from service.commands.failure import CommandError, faults_of_the_repository
from service.commands.options import Config, Models, settings_from

if TYPE_CHECKING:
    from loadtests.demo import Tallied
    from loadtests.sender import Sender
    from loadtests.whatif import Setup
    from loadtests.workload import Workload
    from service.settings import Settings
    from service.supervision import SupervisedServer

_SHORTEST_S = 5.0
_ANSWERS_AFTER_S = 1.0
"""What an answer may take beyond its SLO to be counted as late, not as missing."""


def demo(
    family: Annotated[
        str, typer.Argument(metavar="FAMILY", help="A family in the repository; built first if it is the default one.")
    ] = DEFAULT_FAMILY,
    port: Annotated[
        int | None, typer.Option("--port", "-p", metavar="N", help="Port (setting `port`).", show_default=False)
    ] = None,
    duration: Annotated[float, typer.Option(metavar="S", help="Seconds that the day takes.")] = 120.0,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="R", help="Requests per second at noon. Default: what the family bears.", show_default=False
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page, where there is a display.")] = True,
    once: Annotated[bool, typer.Option("--once", help="End when the day is over, without waiting for Ctrl-C.")] = False,
    models: Models = None,
    config: Config = None,
) -> None:
    """Serve, send a day of traffic pressed into two minutes, with a burst in it, and show both on the gateway's page.

    Real labelled rows are sent open loop. Beside the gateway stands what each variant alone would have made of the same
    arrivals: simulated, with this machine's profile.
    """
    if not (math.isfinite(duration) and duration >= _SHORTEST_S):
        raise CommandError(f"--duration: expected at least {_SHORTEST_S:g} seconds, got {duration:g}", 2)
    if rate is not None and not (math.isfinite(rate) and rate > 0.0):
        raise CommandError(f"--rate: expected a positive number, got {rate:g}", 2)
    settings = settings_from(config, port=port, models=models, page=True)
    from service.addresses import base_url
    from service.configuration import KEYS
    from service.ports import occupant
    from service.supervision import ServerDiedError, SupervisedServer

    if settings.keys_file is not None or KEYS in os.environ:
        raise CommandError(f"the demo asks without API keys: unset `keys_file` and {KEYS} for it", 2)
    if taken := occupant(settings.host, settings.port):
        raise CommandError(taken)
    _have(family, settings)
    with tempfile.TemporaryDirectory(prefix="pareto-demo-") as folder:
        # What it sends has no key, and is not encrypted.
        shown = settings.model_copy(
            update={"comparison": Path(folder, "comparison.json"), "ssl_certfile": None, "ssl_keyfile": None}
        )
        with SupervisedServer(shown) as server:
            try:
                server.wait_until_ready()
                address = f"{base_url(shown.host, shown.port, tls=False)}/?family={family}"
                if not server.stopping:
                    _run(shown, family, server, duration, rate, address, browser=browser)
                if not once or server.stopping:
                    if not server.stopping:
                        _say(f"\nthe gateway goes on serving: {address}; Ctrl-C ends it")
                    code = server.wait()
                    raise typer.Exit(code)
            except ServerDiedError as error:
                raise CommandError(str(error), error.exit_code) from error


def _have(family: str, settings: Settings) -> None:
    """Build the default family where the repository lacks it; another one has to be there."""
    from variants.repository import Repository

    with faults_of_the_repository():
        names = Repository(settings.models).families()
    if family not in names and family == DEFAULT_FAMILY:
        build_then_begin_anew(family, settings.models)
    elif family not in names:
        raise CommandError(f"{settings.models}: has no family {family!r}, but {', '.join(names) or 'none at all'}")


def _run(
    settings: Settings,
    family: str,
    server: SupervisedServer,
    duration_s: float,
    rate: float | None,
    address: str,
    *,
    browser: bool,
) -> None:
    from loadtests.demo import day, lower_rate, noon_rate, simulated
    from loadtests.traces import TraceError
    from service.commands.simulated import setup_of

    _say(f"\nthe page: {address}\n")
    if browser and _has_display():
        webbrowser.open(address)
    with faults_of_the_repository():
        setup, _ = setup_of(settings, family, None, None)
    try:
        workload = day(setup, duration_s, rate=rate)
    except TraceError as error:
        raise CommandError(str(error), 2) from error
    seconds = math.ceil(duration_s)
    runs: dict[str, Tallied] = {}
    for name, run in simulated(setup, workload, seconds, lambda: server.stopping):
        runs[name] = run
        _say(f"simulated on the same arrivals: {name.removeprefix('fixed:')}")
    if server.stopping:
        return
    _say(f"sending {len(workload):,} requests in {duration_s:g} s, the burst from {_clock(duration_s)} on")
    live = _sent(settings, setup, workload, server, runs, seconds)
    if live is not None:
        _summary(setup, workload, runs, live)
        for line in _advice(family, lower_rate(workload, runs[setup.policy], live, rate or noon_rate(setup))):
            _say(line)


def _sent(
    settings: Settings,
    setup: Setup,
    workload: Workload,
    server: SupervisedServer,
    runs: dict[str, Tallied],
    seconds: int,
) -> Tallied | None:
    """Send the day, and every second say in the file of the comparison how it goes; None where it was interrupted."""
    import orjson

    from loadtests.demo import Scorer, comparison
    from loadtests.sender import Sender, prepared
    from service.addresses import reachable_host
    from variants.atomic import write_atomically

    host = reachable_host(settings.host)
    requests = prepared(workload, setup.samples, f"{host}:{settings.port}")
    sender = Sender(host, settings.port, requests)
    scorer = Scorer(sender, workload, setup.samples)
    # The generator shares this process with who reads the answers.
    sys.setswitchinterval(0.0005)
    # Where the server ends under it, what was not answered stays so.
    sending = threading.Thread(target=lambda: _quietly(sender, workload), name="sender", daemon=True)
    sending.start()
    behind_s = float(workload.slo_s.max()) + _ANSWERS_AFTER_S
    path = settings.comparison
    assert path is not None, "the demo names one"
    while not server.stopping:
        sending.join(1.0)
        # Until the sender has its connections, its start is infinitely far away.
        elapsed_s = time.perf_counter() - sender.started_s - behind_s
        scorer.read(elapsed_s)
        until = seconds if not sending.is_alive() else int(min(max(elapsed_s, 0.0), seconds - 1))
        live = scorer.tallied(seconds)
        said = comparison(workload, seconds, runs, live, until, setup.policy)
        write_atomically(path, orjson.dumps(said))
        if not sending.is_alive():
            return live
    sender.stopped = True
    sending.join(5.0)
    return None


def _quietly(sender: Sender, workload: Workload) -> None:
    with suppress(OSError):
        sender.run(workload)


def _summary(setup: Setup, workload: Workload, runs: dict[str, Tallied], live: Tallied) -> None:
    """The table that the page shows, for the terminal."""
    _say("\ncorrect in time, of all requests:")
    lines = [("the gateway, live", live), ("the gateway, simulated", runs[setup.policy])]
    fixed = {name: run for name, run in runs.items() if name != setup.policy}
    lines += [(f"{name.removeprefix('fixed:')} alone, simulated", run) for name, run in fixed.items()]
    for name, run in lines:
        _say(
            f"  {name:<34} {run.correct.sum() / len(workload):6.1%}   in time {run.in_time.sum() / len(workload):6.1%}"
        )
    _say("simulated: a machine with nothing else to do; live: this one, which sends the requests, too")


def _advice(family: str, less: float | None) -> tuple[str, ...]:
    """What to do where live fell far behind, which nobody should take for what the gateway's choices are worth."""
    if less is None:
        return ()
    return (
        "this machine could not keep up with the generator beside the gateway: live is far behind the same, simulated",
        f"try a lower rate: pareto demo {family} --rate {less:g}",
    )


def _clock(duration_s: float) -> str:
    from loadtests.demo import BURST_AT

    return f"{BURST_AT * duration_s:.0f} s"


def _has_display() -> bool:
    """Elsewhere a browser in the terminal would take it from the demo."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _say(line: str) -> None:
    typer.echo(line)
