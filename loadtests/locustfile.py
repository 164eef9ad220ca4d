"""Open-loop load on a gateway, scored against the family's labels.

    locust -f loadtests/locustfile.py --headless -H http://127.0.0.1:3000 --rate 200 --slo-mix 30:0.5,100:0.5

Locust brings the command line, the HTTP client and its own statistics; when requests leave is `loadtests.openloop`'s.
Ends with exit code 0 after a valid run, 3 after an invalid one, 2 where it could not start.
"""

from __future__ import annotations

import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.event import EventHook
from rich.console import Console

from loadtests import oip
from loadtests.fetch import fetch
from loadtests.openloop import Reply, run_open_loop
from loadtests.report import print_score, score_json, write_json
from loadtests.samples import Samples, read_samples
from loadtests.scoring import Fate, score
from loadtests.traces import PROCESSES, Shape, TraceError, arrivals, recorded
from loadtests.workload import SloMix, Workload
from variants.repository import Repository, RepositoryError

INVALID_RUN = 3
CANNOT_START = 2
_RECORDED = "csv"


@dataclass(frozen=True, slots=True)
class Plan:
    """What this run sends: drawn or loaded before the first request leaves."""

    workload: Workload
    samples: Samples
    bodies: tuple[bytes, ...]
    variant: str | None
    max_in_flight: int
    report: Path | None
    answers: Path | None


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust's events carry no types
def add_options(parser: ArgumentParser) -> None:
    """Add the options of the workload to locust's own."""
    group = parser.add_argument_group("open-loop workload")
    add = group.add_argument
    add("--rate", type=float, default=100.0, help="mean arrivals per second (default 100)")
    add("--duration", type=float, default=30.0, help="seconds of arrivals (default 30)")
    add("--process", choices=[*PROCESSES, _RECORDED], default="poisson", help="arrival process (default poisson)")
    add("--cv2", type=float, default=4.0, help="squared coefficient of variation of gamma gaps (default 4)")
    add("--peak-ratio", type=float, default=7.0, help="highest over lowest rate of onoff and ramp (default 7)")
    add("--period", type=float, default=2.0, help="seconds of one on and one off phase (default 2)")
    add("--trace", type=Path, help="recorded arrivals for --process csv: first column seconds or ISO times")
    add("--slo-mix", default="100", help="milliseconds:weight,... (default 100)")
    add("--seed", type=int, default=0, help="of arrivals, SLOs and samples (default 0)")
    add("--family", default="sentiment", help="model family to ask (default sentiment)")
    add("--variant", help="pin this variant instead of letting the gateway choose")
    add("--models", type=Path, default=Path("models"), help="model repository with the labelled samples")
    add("--workload", type=Path, help="replay this .npz instead of drawing a workload")
    add("--save-workload", type=Path, help="write the drawn workload as .npz")
    add("--max-in-flight", type=int, default=1024, help="open requests at most (default 1024)")
    add("--report", type=Path, help="write the score as JSON")
    add("--answers", type=Path, help="write what became of each request as .npz")


@events.init.add_listener  # type: ignore[untyped-decorator]  # locust's events carry no types
def prepare(environment: Environment, **_: Any) -> None:
    """Draw the workload and check that server and family are there; ends the process with one line if not."""
    options = environment.parsed_options
    assert options is not None, "locust parses options before it fires init"
    if not options.headless or options.master or options.worker or (options.processes or 1) != 1:
        _refuse("run with --headless, in one process: one dispatcher keeps the arrival times")
    if not options.host:
        _refuse("no server named: give -H http://HOST:PORT")
    try:
        samples = read_samples(Repository(options.models).open(options.family))
        workload = _workload(options, len(samples))
        if options.save_workload:
            workload.save(options.save_workload)
    except (RepositoryError, TraceError, OSError) as error:
        _refuse(str(error))
    _check_server(options.host, options.family, options.variant)
    bodies = tuple(oip.infer_body(samples, row) for row in range(len(samples)))
    OpenLoopUser.plan = Plan(
        workload, samples, bodies, options.variant, options.max_in_flight, options.report, options.answers
    )


class OpenLoopUser(FastHttpUser):
    """The one user whose one task sends the whole workload."""

    plan: Plan
    fixed_count = 1
    concurrency = 65536
    network_timeout = 30.0
    connection_timeout = 10.0

    @task
    def run_workload(self) -> None:
        """Send everything, print the score, end locust."""
        plan, requests = self.plan, self.environment.events.request
        # Locust would time requests from when they left; what it is told below counts from when they should have.
        self.client.request_event = EventHook()  # type: ignore[no-untyped-call]  # locust's events carry no types
        index_of = {label: index for index, label in enumerate(plan.samples.labels)}
        path = oip.infer_path(plan.samples.family, plan.variant)
        slo_ms = [f"{slo_s * 1000.0:g}" for slo_s in plan.workload.slo_s.tolist()]
        sample = plan.workload.sample.tolist()

        def send(index: int) -> Reply:
            headers = {**oip.JSON_HEADERS, oip.SLO_HEADER: slo_ms[index], "accept-encoding": "identity"}
            response = self.client.post(path, data=plan.bodies[sample[index]], headers=headers)
            fate = oip.fate_of(response.status_code)
            if fate is not Fate.ANSWERED:
                return Reply(fate)
            try:
                label = oip.label_of(response.content, index_of)
            except ValueError:
                return Reply(Fate.FAILED)
            received: Mapping[str, Any] = response.headers or {}
            stages = oip.stage_seconds(str(received.get(oip.TIMING_HEADER) or ""))
            variant = str(received.get(oip.VARIANT_HEADER) or "unnamed")
            escalated = "," in str(received.get(oip.PATH_HEADER) or "")
            return Reply(
                fate, label, variant, stages.get("total", math.nan), stages.get("compute", math.nan), escalated
            )

        def observe(index: int, reply: Reply, latency_s: float) -> None:
            requests.fire(
                request_type="POST",
                name=f"{plan.samples.family} SLO {slo_ms[index]} ms",
                response_time=latency_s * 1000.0,
                response_length=0,
                exception=None if reply.fate is Fate.ANSWERED else RuntimeError(reply.fate.value),
                context={},
            )

        results, sending = run_open_loop(plan.workload, send, plan.max_in_flight, observe)
        judged = score(plan.workload, plan.samples.label, results, sending)
        print_score(Console(), f"{plan.samples.family} live: {plan.workload.description}", judged)
        if plan.report:
            write_json(plan.report, score_json(judged))
        if plan.answers:
            results.save(plan.answers)
        self.environment.process_exit_code = 0 if judged.valid else INVALID_RUN
        assert self.environment.runner is not None, "a user runs in a runner"
        self.environment.runner.quit()


def _workload(options: Namespace, samples: int) -> Workload:
    if options.workload:
        workload = Workload.load(options.workload)
        if workload.sample.max() >= samples:
            raise TraceError(f"{options.workload}: asks for sample {workload.sample.max()} of {samples}")
        return workload
    mix = SloMix.parse(options.slo_mix)
    rng = np.random.default_rng(options.seed)
    if (options.process == _RECORDED) != bool(options.trace):
        raise TraceError("--process csv and --trace FILE.csv go together")
    if options.process == _RECORDED:
        arrival_s = recorded(options.trace, options.rate, options.duration)
    else:
        shape = Shape(options.cv2, options.peak_ratio, options.period)
        arrival_s = arrivals(options.process, options.rate, options.duration, shape, rng)
    description = f"{options.process} {options.rate:g}/s for {options.duration:g} s, SLO {mix} ms, seed {options.seed}"
    return Workload.draw(arrival_s, mix, samples, rng, description)


def _check_server(host: str, family: str, variant: str | None) -> None:
    url = f"{host.rstrip('/')}/v2/models/{family}" + (f"/versions/{variant}" if variant else "")
    try:
        status = fetch(url).status
    except (OSError, ValueError) as error:
        _refuse(f"no gateway at {host}: {error}")
    if status == 404:
        _refuse(f"{host} does not serve {family}{'/' + variant if variant else ''}; --family names another one")
    if status != 200:
        _refuse(f"{url} answered {status}, expected 200")


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"loadtest: {message}\n")
    raise SystemExit(CANNOT_START)
