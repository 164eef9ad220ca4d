"""What a request costs, in calls of functions: unlike time, they are the same on every machine and in every run.

A hundred calls are some 40 us. Who adds a feature to the hot path sees here what every request pays for it. A limit
is a little above what was counted when it was set; lower it where the path gets shorter.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import pytest

from loadtests.synthetic import synthetic
from router.contract import Slot
from router.policies import policy_named
from router.policies.look_ahead import LookAhead
from router.request import Request
from router.scheduler import Scheduler
from service.dataplane import DataPlane
from service.gateway import Gateway, Phase
from service.settings import Settings
from tests.service.families import sign_model, write_family
from variants.repository import Repository

REQUESTS = 50


class Calls:
    """Counts calls of functions, Python's and others, on this thread while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def _called(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.count += 1

    def __enter__(self) -> Calls:
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


async def least(plane: DataPlane, family: str) -> int:
    """The least calls that a request took which comes alone."""
    body = orjson.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 0.0, 0.0, 0.0]}]})
    headers = [(b"x-slo-ms", b"5000"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": f"/v2/models/{family}/infer", "headers": headers}
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    counts = []
    for _ in range(REQUESTS):
        with Calls() as calls:
            await plane(dict(scope), receive, send)
            # What is left to do once the answer is sent: observers are told two iterations later.
            for _ in range(3):
                await asyncio.sleep(0)
        counts.append(calls.count)
    assert [200] * REQUESTS == statuses
    return min(counts)


def test_a_request_alone_costs_no_more_calls_than_it_did(
    tmp_path: Path, no_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the data plane, from the ASGI scope to the answer and what observers make of it; without uvicorn."""
    # Counting slows the model down, and so do neighbours: it is quicker than the longer rule all the same.
    monkeypatch.setattr(LookAhead, "is_quick", lambda *_: True)
    write_family(Repository(tmp_path), "sign", {"quick": (sign_model(), 0.8), "better": (sign_model(1), 0.9)})

    async def nobody(*_: object) -> None:
        """There is no BentoML behind this data plane."""

    async def run() -> int:
        gateway = Gateway(Settings(models=tmp_path, slots=1))
        await gateway.start()
        assert gateway.phase is Phase.READY
        plane = DataPlane(gateway, nobody, frozenset())
        plane.index_paths()
        try:
            return await least(plane, "sign")
        finally:
            await gateway.drain()

    assert asyncio.run(run()) <= 760


@pytest.mark.parametrize(("policy", "rows", "limit"), [("casc", 1, 1150), ("casc", 16, 290)])
def test_a_row_costs_the_scheduler_no_more_calls_than_it_did(policy: str, rows: int, limit: int) -> None:
    """Requests of a row each that come together, from `submit` to the record, once the machine is known."""
    scheduler = Scheduler([synthetic()[0]], [Slot(0)], policy_named(policy))

    def answer(first: int, now: float) -> None:
        for number in range(first, first + rows):
            scheduler.submit(Request(number, "synthetic", (0,), now, now + 1.0, now + 2.0), now)
        poll = scheduler.poll(now)
        ended = len(poll.records)
        while ended < rows:
            for dispatch in poll.dispatches:
                now += dispatch.predicted_s
                scheduler.complete(dispatch.batch_id, now, dispatch.predicted_run_s, [0.9] * len(dispatch.items))
            now = now if poll.dispatches else poll.wake_at
            poll = scheduler.poll(now)
            ended += len(poll.records)

    for turn in range(20):
        answer(turn * rows, 0.1 * turn)
    with Calls() as calls:
        answer(20 * rows, 2.0)
    assert calls.count / rows <= limit
