"""Where a request's microseconds go: the real data plane, driven without a socket, with a stopwatch on each step.

`make bench-profile`. A step's time is its own, without the steps that it calls. What uvicorn and the kernel add is
not in it: compare `make bench-overhead`, which has both.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from router.rule import Rule
from router.scheduler import Scheduler
from service import answering, inference
from service.dataplane import DataPlane
from service.gateway import Gateway, Phase
from service.metrics import Metrics
from service.page.feed import Feed
from service.settings import Settings
from service.statistics import Statistics
from variants.preparation import TensorPreparer
from variants.repository import Repository
from variants.session import Session

ROUNDS = 7
REQUESTS = 4000


class MeasurementError(Exception):
    """What was to be measured went wrong. The message is one line.

    An exit would end the process that measures without a word to the one that waits for it.
    """


class Stopwatch:
    """Adds up the own time of functions that it is wound around."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = [0.0]

    def wind(self, owner: Any, name: str, label: str) -> None:
        """Put a stopwatch around `owner.name`; several functions may share a label."""
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            started_s = perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                whole_s = perf_counter() - started_s
                self.seconds[label] = self.seconds.get(label, 0.0) + whole_s - self._inner.pop()
                self._inner[-1] += whole_s

        setattr(owner, name, timed)


def wind_all(watch: Stopwatch) -> None:
    """Every step of a request, by the word under which it is reported."""
    watch.wind(inference, "read_headers", "read headers and terms")
    watch.wind(answering, "read_terms", "read headers and terms")
    watch.wind(inference, "decode_infer", "decode JSON")
    watch.wind(TensorPreparer, "prepare", "prepare rows")
    watch.wind(Scheduler, "submit", "schedule: queue")
    watch.wind(Scheduler, "poll", "schedule: hand out and collect")
    watch.wind(Rule, "decide", "schedule: decide")
    watch.wind(Scheduler, "complete", "schedule: learn and record")
    watch.wind(Session, "run", "run the model")
    watch.wind(TensorPreparer, "collate", "join and part the batch")
    watch.wind(TensorPreparer, "decode", "softmax and labels")
    watch.wind(Metrics, "observe", "metrics and statistics")
    watch.wind(Statistics, "observe", "metrics and statistics")
    watch.wind(Feed, "observe", "count for the page")
    watch.wind(inference, "outputs_of", "encode the answer")
    watch.wind(inference, "encode_infer", "encode the answer")
    watch.wind(inference, "decision", "encode the answer")
    watch.wind(answering, "decision_headers", "encode the answer")


async def drive(gateway: Gateway, family: str, connections: int) -> float:
    """Microseconds of one request with that many callers, each of which waits for its answer."""
    plane = DataPlane(gateway, _nobody, frozenset())
    plane.index_paths()
    body = _body(gateway, family)
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": f"/v2/models/{family}/infer", "headers": headers}
    refused: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message.get("status", 200) != 200:
            refused.append(message["status"])

    async def caller(requests: int) -> None:
        for _ in range(requests):
            await plane(dict(scope), receive, send)
            await asyncio.sleep(0)

    each = REQUESTS // connections
    started_s = perf_counter()
    async with asyncio.TaskGroup() as callers:
        for _ in range(connections):
            callers.create_task(caller(each))
    if refused:
        raise MeasurementError(f"{len(refused)} of {each * connections} requests were answered {refused[0]}")
    return (perf_counter() - started_s) / (each * connections) * 1e6


async def measure(models: Path, family: str, connections: int) -> dict[str, float]:
    """Median microseconds of each step for one request, and of all of it under `in all`, without the stopwatches."""
    gateway = Gateway(Settings(models=models, slots=1))
    await gateway.start()
    if gateway.phase is not Phase.READY:
        raise MeasurementError("; ".join(gateway.problems.values()) or f"{models} holds no family")
    await drive(gateway, family, connections)
    whole = [await drive(gateway, family, connections) for _ in range(ROUNDS)]
    rounds = []
    watch = Stopwatch()
    wind_all(watch)
    for _ in range(ROUNDS):
        watch.seconds.clear()
        await drive(gateway, family, connections)
        requests = REQUESTS // connections * connections
        rounds.append({label: seconds / requests * 1e6 for label, seconds in watch.seconds.items()})
    steps = {label: statistics.median(one[label] for one in rounds) for label in rounds[0]}
    in_all = statistics.median(whole)
    steps["event loop and hand-over"] = max(0.0, in_all - sum(steps.values()))
    return {**steps, "in all": in_all}


async def _nobody(*_: object) -> None:
    """There is no BentoML behind this data plane."""


def _body(gateway: Gateway, family: str) -> bytes:
    loaded = gateway.families[family]
    (tensor,) = loaded.manifest.inputs
    row = gateway.reader.repository.open(family).samples()[tensor.name][:1]
    given = {"name": tensor.name, "shape": list(row.shape), "datatype": tensor.datatype, "data": row.ravel().tolist()}
    return orjson.dumps({"inputs": [given]})


def main() -> None:
    """Print the table for 1 and 16 connections; each is measured in a process of its own."""
    parser = argparse.ArgumentParser(prog="bench-profile", description="where a request's microseconds go")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="digits", help="a tensor family (default digits)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    options = parser.parse_args()
    if options.family not in Repository(options.models).families():
        sys.exit(f"bench-profile: {options.models} holds no family {options.family!r}")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        try:
            columns = [pool.apply(_measured, (options.models, options.family, c)) for c in options.connections]
        except MeasurementError as error:
            sys.exit(f"bench-profile: {error}")
    table = Table("step", *(f"us at {c} connections" for c in options.connections), title=f"{options.family}, one row")
    for step in sorted(columns[0], key=lambda step: columns[0][step]):
        table.add_row(step, *(f"{column[step]:.1f}" for column in columns))
    Console().print(table)


def _measured(models: Path, family: str, connections: int) -> dict[str, float]:
    return uvloop.run(measure(models, family, connections))


if __name__ == "__main__":
    main()
