"""Does memory stay where it is while variants come and go? (`make bench-churn`).

Copies of one real family are asked for in turn by one client, one variant after the other by name, in a budget that has
room for few of them: almost every request is cold, loads that variant and unloads others. Reported are the resident
memory of the process that serves in tenths of the run, what it grew by with every load (a line through the second half,
in which the allocator has found its size), and the most that it was over the budget.

With `--largest`, one more client for each core asks the variants that were asked last for the largest batch that there
is, of the longest rows, again and again: memory grows by what batches take, on all that are loaded.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from loadtests import oip
from loadtests.cold import described
from loadtests.cold_workload import family_names, write_copies
from loadtests.report import write_json
from loadtests.resident import (
    ResidentWatch,
    bytes_before_models,
    most_resident_of,
    resident_of,
    serving_process,
    shared_once,
)
from loadtests.samples import Samples, read_samples
from loadtests.servers import Server, gateway, running
from variants.repository import Repository

SAMPLE_EVERY_S = 0.02
PARTS = 10
ASK_METRICS_EVERY = 5
"""Requests between two looks at how many loads there were."""
RECENT = 4
"""So many of those asked last are asked for largest batches."""
PAUSE_S = 0.005

PATIENCE_S = 60.0
"""Where nothing was loaded for so long, nothing is expected to be: there is no room for what is asked for."""
_REFUSED = (429, 503)

Message = tuple[Mapping[str, str], bytes]
"""Headers and body of a request."""


class Held(NamedTuple):
    """Resident memory at one time, and how many variants had been loaded by then."""

    loads: int
    resident_bytes: int


class Churned(NamedTuple):
    """What a run came to: `tenths` are the median and the most, in bytes; `slope_bytes` is the growth with a load."""

    loads: int
    evictions: int
    requests: int
    seconds: float
    empty_bytes: int
    budget_bytes: int
    tenths: tuple[tuple[float, int], ...]
    slope_bytes: float
    most_bytes: int

    @property
    def excess(self) -> float:
        """The most that was used over the budget, as a share of it; negative where it always stayed below."""
        return self.most_bytes / self.budget_bytes - 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print; `--output` writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="sentiment")
    parser.add_argument("--families", type=int, default=6)
    parser.add_argument("--room", type=float, default=1.5, help="whole families that the budget has room for")
    parser.add_argument("--loads", type=int, default=200, help="variants to load before it ends")
    parser.add_argument("--seed", type=int, help="ask in an order of chance instead of in turn")
    parser.add_argument("--largest", action="store_true", help="largest batches on what is loaded, from every core")
    parser.add_argument("--one-base", action="store_true", help="the copies share their lookup tables")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--processes", action="store_true", help="batches in processes; what these share counts once")
    where.add_argument("--devices", action="store_true", help="a slot of two threads and one of one")
    parser.add_argument("--seconds", type=float, default=600.0, help="end after that in any case")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    repository = Repository(given.models)
    revision = repository.open(given.family)
    _, sizes = described(revision)
    names = family_names(given.families)
    room_bytes = int(given.room * sum(sizes.values()))
    samples = read_samples(revision)
    messages = [oip.infer_message(samples, row % len(samples)) for row in range(64)]
    largest = largest_message(samples, revision.manifest.max_batch) if given.largest else None
    with tempfile.TemporaryDirectory(dir=given.models.resolve().parent) as folder:
        write_copies(repository, given.family, Path(folder), names, tables="shared" if given.one_base else "own")
        paths = [oip.infer_path(name, variant) for variant in sizes for name in names]
        if given.seed is not None:
            np.random.default_rng(given.seed).shuffle(paths)
        settings = {"PARETO_ISOLATION": "processes"} if given.processes else {}
        if given.devices:
            settings = {"PARETO_DEVICES": '{"wide": {"threads": 2}, "narrow": {}}'}
            # Each variant is in memory twice.
            room_bytes *= 2
        found = churn(Path(folder), paths, messages, room_bytes, given.loads, given.seconds, settings, largest)
    Console().print(as_table(found))
    if given.output:
        write_json(given.output, {**found._asdict(), "excess": found.excess})


def churn(
    root: Path,
    paths: Sequence[str],
    messages: Sequence[Message],
    room_bytes: int,
    loads: int,
    limit_s: float,
    more_settings: Mapping[str, str],
    largest: Message | None = None,
) -> Churned:
    """Ask at `paths` in turn until so many variants were loaded, and those asked last for the `largest` meanwhile.

    Raises `httpx.HTTPError` on a refusal, without the `largest`, and `SystemExit` where nothing is loaded any more.
    """
    usual = {"PARETO_STAGES": "off", "PARETO_LOG_LEVEL": "warning", **more_settings}
    # Profiles are taken once.
    bytes_before_models(root, usual)
    empty_bytes = bytes_before_models(root, usual)
    budget_bytes = empty_bytes + room_bytes
    read = shared_once if "PARETO_ISOLATION" in more_settings else resident_of
    settings = {**usual, "PARETO_MEMORY_BUDGET": str(budget_bytes)}
    with running(gateway(root, settings)) as server, httpx.Client(base_url=server.url, timeout=600.0) as client:
        held: list[Held] = []
        loaded = 0
        started_s, requests = time.monotonic(), 0
        moved_s = started_s
        watched = partial(read, serving_process(server))
        recent: deque[str] = deque(maxlen=RECENT)
        with (
            asking(server, recent, largest),
            ResidentWatch(watched, SAMPLE_EVERY_S, lambda now: held.append(Held(loaded, now))),
        ):
            while loaded < loads and time.monotonic() - started_s < limit_s:
                headers, body = messages[requests % len(messages)]
                answer = client.post(paths[requests % len(paths)], content=body, headers=headers)
                # Beside the largest batches the gateway may have no time for one row.
                if largest is None or answer.status_code not in _REFUSED:
                    answer.raise_for_status()
                recent.append(paths[requests % len(paths)])
                requests += 1
                if requests % ASK_METRICS_EVERY == 0:
                    before, loaded = loaded, counted(server, "pareto_model_loads_total")
                    moved_s = time.monotonic() if loaded > before else moved_s
                    if time.monotonic() - moved_s > PATIENCE_S:
                        said = answer.text.strip() if answer.status_code in _REFUSED else "requests are answered"
                        raise SystemExit(f"nothing was loaded for {PATIENCE_S:g} s: {said}; give it more --room")
        seconds = time.monotonic() - started_s
        most_bytes = most_resident_of(serving_process(server)) if read is resident_of else 0
        evictions = counted(server, "pareto_model_evictions_total")
    return _churned(held, evictions, requests, seconds, empty_bytes, budget_bytes, most_bytes)


def largest_message(samples: Samples, rows: int) -> Message:
    """A request of so many rows, each the longest of the samples."""
    longest = int(np.argmax(samples.size_class))
    headers, body = oip.infer_message(samples, longest)
    if headers != oip.JSON_HEADERS:
        raise SystemExit("--largest: the rows of this family are too large for it")
    document = orjson.loads(body)
    for tensor in document["inputs"]:
        tensor["shape"][0] = rows
        tensor["data"] *= rows
    return headers, orjson.dumps(document)


@contextmanager
def asking(server: Server, recent: deque[str], message: Message | None) -> Iterator[None]:
    """Send the message to what is `recent` from a client for each core, whether it is answered or not."""
    ended = threading.Event()

    def run(headers: Mapping[str, str], body: bytes) -> None:
        with httpx.Client(base_url=server.url, timeout=600.0) as client:
            while not ended.wait(PAUSE_S):
                for path in tuple(recent)[::-1]:
                    client.post(path, content=body, headers=headers)

    clients = [threading.Thread(target=run, args=message) for _ in range(os.cpu_count() or 1)] if message else []
    for client in clients:
        client.start()
    try:
        yield
    finally:
        ended.set()
        for client in clients:
            client.join()


def counted(server: Server, name: str) -> int:
    """The sum over all series of a counter."""
    lines = httpx.get(f"{server.url}/metrics", timeout=30.0).text.splitlines()
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " "))))


def slope_bytes(held: Sequence[Held]) -> float:
    """Bytes that memory grew by with every load: least squares over the second half of the samples; 0 for no loads."""
    half = np.array(held[len(held) // 2 :], dtype=np.float64).reshape(-1, 2)
    loads = half[:, 0] - half[:, 0].mean() if len(half) else half[:, 0]
    spread = float((loads**2).sum())
    return float((loads * half[:, 1]).sum() / spread) if spread else 0.0


def as_table(found: Churned) -> Table:
    """Tenths of the run, one a row, and the rest as the caption."""
    table = Table(
        title=f"{found.loads} loads and {found.evictions} evictions by {found.requests} requests in "
        f"{found.seconds:.0f} s; {found.empty_bytes / 1e6:.0f} MB before any model",
        title_justify="left",
        caption=f"growth {found.slope_bytes / 1e3:.1f} kB a load; at the most {100 * found.excess:+.2f} % over the "
        f"budget of {found.budget_bytes / 1e6:.0f} MB",
        caption_justify="left",
    )
    for column in ("tenth of the run", "median MB", "most MB"):
        table.add_column(column, justify="right")
    for number, (median, most) in enumerate(found.tenths, 1):
        table.add_row(str(number), f"{median / 1e6:.1f}", f"{most / 1e6:.1f}")
    return table


def _churned(
    held: Sequence[Held],
    evictions: int,
    requests: int,
    seconds: float,
    empty_bytes: int,
    budget_bytes: int,
    most_bytes: int,
) -> Churned:
    resident = np.array([moment.resident_bytes for moment in held] or [empty_bytes])
    parts = [part for part in np.array_split(resident, PARTS) if len(part)]
    return Churned(
        loads=held[-1].loads if held else 0,
        evictions=evictions,
        requests=requests,
        seconds=seconds,
        empty_bytes=empty_bytes,
        budget_bytes=budget_bytes,
        tenths=tuple((float(np.median(part)), int(part.max())) for part in parts),
        slope_bytes=slope_bytes(held),
        most_bytes=max(most_bytes, int(resident.max())),
    )


if __name__ == "__main__":
    main()
