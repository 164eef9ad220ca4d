"""Crashes and hangs under load: what becomes of each request, and of the gateway (`make bench-faults`).

A real gateway with executors in processes serves many families of two variants. The better one ends its process on one
row and does not come to an end on another; the other one is sound. Sound requests arrive open loop, whatever became of
those before. Beside them each family is hurt a few times, once its better variant answers again: that takes longer each
time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import httpx
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtests import servers
from loadtests.handmade import CRASHES, HANGS, breaking_model, sound_model, write_family
from loadtests.report import write_json
from router.quarantine import SLOW
from router.words import Reason
from variants.fingerprint import machine_fingerprint
from variants.repository import Repository

WORKER = "_bentoml_impl.worker"
"""In the command line of the process that serves."""
SOUND = (1.0, 0.0, 0.0, 0.0)
BREAKS, SAVES = "breaks", "saves"
"""The better variant, and the one that answers in its place."""
HANG_EVERY = 4
"""One of so many faults is a hang."""
HANG_S = 0.3
LOOKS_EVERY_S = 0.05


class Asked(NamedTuple):
    """One request: when it is due, which family it is for, and what it does to the variant that answers."""

    due_s: float
    family: str
    fault: Reason | None = None


class Ended(NamedTuple):
    """What became of one: when it was sent and over, its status, and which variant answered."""

    asked: Asked
    sent_s: float
    ended_s: float
    status: int
    variant: str


class Report(NamedTuple):
    """What was seen: answers by status and variant, and faults by reason, which are to be as many as were injected.

    Of the rest there is to be none, but for the process. `unanswered` are sound requests whose status is not 200.
    """

    statuses: dict[str, int]
    unanswered: int
    faults: dict[str, int]
    injected: int
    without_outcome: int
    records_missing: int
    from_quarantine: int
    same_process: bool

    @property
    def is_sound(self) -> bool:
        """Whether each request has its outcome, sound ones an answer, none from quarantine, and the gateway stayed."""
        wrong = (self.unanswered, self.without_outcome, self.records_missing, self.from_quarantine)
        return not any(wrong) and self.same_process and sum(self.faults.values()) == self.injected


class Plan(NamedTuple):
    """Sound requests in order, and for each family when it is first hurt and how, one after the other."""

    sound: Sequence[Asked]
    hurt: Mapping[str, Sequence[Asked]]


def plan(families: int, times: int, rate: float, spread_s: float, seed: int = 0) -> Plan:
    """A Poisson stream of sound requests over all families, and `times` faults for each of them.

    `rate` is that of the sound ones, per second; `spread_s` the seconds over which families are first hurt.
    """
    rng = np.random.default_rng(seed)
    hurt = {}
    for number in range(families):
        due_s = 0.5 + spread_s * number / families
        hangs = [(number * times + turn) % HANG_EVERY == HANG_EVERY - 1 for turn in range(times)]
        name = f"family-{number:02}"
        hurt[name] = [Asked(due_s, name, Reason.HUNG if hang else Reason.CRASHED) for hang in hangs]
    ends_s = 0.5 + spread_s + sum(SLOW.seconds(strikes + 1) for strikes in range(times - 1)) + 1.0
    moments_s = np.cumsum(rng.exponential(1.0 / rate, int(2 * rate * ends_s) + 10))
    names = list(hurt)
    sound = [Asked(float(due_s), names[rng.integers(families)]) for due_s in moments_s if due_s < ends_s]
    return Plan(sound, hurt)


def write_families(repository: Repository, names: Iterable[str]) -> None:
    """Publish these families."""
    variants = {SAVES: (sound_model(), 0.8), BREAKS: (breaking_model(), 0.9)}
    for name in names:
        write_family(repository, name, variants)


def settings() -> dict[str, str]:
    """Those of the gateway."""
    return {
        "PARETO_ISOLATION": "processes",
        "PARETO_SLOTS": "2",
        "PARETO_HANG_S": str(HANG_S),
        "PARETO_POLICY": "most-accurate",
        "PARETO_LOG_LEVEL": "error",
    }


async def _send(http: httpx.AsyncClient, asked: Asked, started_s: float) -> Ended:
    await asyncio.sleep(max(0.0, started_s + asked.due_s - perf_counter()))
    row = {None: SOUND, Reason.CRASHED: CRASHES, Reason.HUNG: HANGS}[asked.fault]
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": list(row)}]}
    sent_s = perf_counter() - started_s
    try:
        answer = await http.post(f"/v2/models/{asked.family}/infer", json=body)
    except httpx.HTTPError as error:
        return Ended(asked, sent_s, perf_counter() - started_s, 0, type(error).__name__)
    ended_s = perf_counter() - started_s
    return Ended(asked, sent_s, ended_s, answer.status_code, answer.headers.get("x-variant", ""))


async def _hurt(http: httpx.AsyncClient, faults: Sequence[Asked], started_s: float) -> list[Ended]:
    """Send the faults of a family, each once the variant that it is for answers again."""
    ended = []
    for asked in faults:
        await asyncio.sleep(max(0.0, started_s + asked.due_s - perf_counter()))
        while True:
            ready = await http.get(f"/v2/models/{asked.family}/versions/{BREAKS}/ready")
            if ready.status_code == HTTPStatus.OK:
                break
            await asyncio.sleep(LOOKS_EVERY_S)
        ended.append(await _send(http, asked, started_s))
    return ended


async def send(url: str, asked: Plan) -> list[Ended]:
    """Send each sound request when it is due, whatever became of those before, and the faults; wait for all."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=60.0, limits=limits) as http:
        started_s = perf_counter() + 0.2
        hurt = asyncio.gather(*(_hurt(http, faults, started_s) for faults in asked.hurt.values()))
        sound = await asyncio.gather(*(_send(http, one, started_s) for one in asked.sound))
        return [*sound, *itertools.chain.from_iterable(await hurt)]


def from_quarantine(ended: Sequence[Ended]) -> int:
    """Answers of a variant that was in quarantine, for certain, when they were asked for and when they came.

    Its n-th spell begins no earlier than the request that broke it was sent and no later than that ended.
    """
    found = 0
    for name in {one.asked.family for one in ended}:
        own = [one for one in ended if one.asked.family == name]
        hurt = sorted((one for one in own if one.asked.fault is not None), key=lambda one: one.sent_s)
        for number, fault in enumerate(hurt):
            until_s = fault.sent_s + SLOW.seconds(number + 1)
            found += sum(one.variant == BREAKS and one.sent_s > fault.ended_s and one.ended_s < until_s for one in own)
    return found


def unanswered(ended: Sequence[Ended]) -> int:
    """Requests that break nothing, and have no answer."""
    return sum(one.asked.fault is None and one.status != HTTPStatus.OK for one in ended)


def workers(server: servers.Server) -> list[int]:
    """The processes that serve."""
    found = []
    for one in server.tree():
        # Copies in which models are tried end at any moment.
        with suppress(psutil.NoSuchProcess):
            if any(WORKER in argument for argument in one.cmdline()):
                found.append(one.pid)
    return found


def run(server: servers.Server, asked: Plan) -> Report:
    """Send everything to a gateway that serves the families, and see what became of it."""
    before = workers(server)
    ended = asyncio.run(send(server.url, asked))
    text = httpx.get(f"{server.url}/metrics", timeout=30.0).text
    faults: Counter[str] = Counter()
    records = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "pareto_variant_faults_total":
                faults[sample.labels["reason"]] += int(sample.value)
            elif sample.name == "pareto_requests_total":
                records += sample.value
    return Report(
        statuses=dict(Counter(f"{one.status} {one.variant}".strip() for one in ended)),
        unanswered=unanswered(ended),
        faults=dict(faults),
        injected=sum(len(faults) for faults in asked.hurt.values()),
        without_outcome=sum(one.status == 0 for one in ended),
        records_missing=len(ended) - int(records),
        from_quarantine=from_quarantine(ended),
        same_process=bool(before) and before == workers(server),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write `isolation-faults.json`; the exit code says whether all was sound."""
    parser = argparse.ArgumentParser(prog="bench-faults", description="crashes and hangs under load")
    parser.add_argument("--families", type=int, default=50)
    parser.add_argument("--times", type=int, default=4, help="faults of each family")
    parser.add_argument("--rate", type=float, default=60.0, help="sound requests per second")
    parser.add_argument("--spread", type=float, default=45.0, help="seconds over which families are first hurt")
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    options = parser.parse_args(arguments)
    asked = plan(options.families, options.times, options.rate, options.spread)
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository(Path(folder))
        write_families(repository, asked.hurt)
        try:
            with servers.running(servers.gateway(repository.root, settings())) as server:
                report = run(server, asked)
        except servers.ServerError as error:
            sys.exit(f"bench-faults: {error}")
    said = report._asdict()
    for name, value in said.items():
        sys.stdout.write(f"{name}: {value}\n")
    write_json(options.out / "isolation-faults.json", {"machine": machine_fingerprint().description, **said})
    sys.exit(0 if report.is_sound else 1)


if __name__ == "__main__":
    main()
