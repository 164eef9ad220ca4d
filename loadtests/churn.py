"""Does memory stay where it is while variants come and go? (`make bench-churn`).

Copies of one real family are asked for in turn by one client, one variant after the other by name, in a budget that has
room for few of them: almost every request is cold, loads that variant and unloads others. Reported are the resident
memory of the process that serves in tenths of the run, what it grew by with every load (a line through the second half,
in which the allocator has found its size), and the most that it was over the budget.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests import oip
from loadtests.cold import ResidentWatch, described, resident_bytes, serving_process
from loadtests.cold_workload import family_names, write_copies
from loadtests.report import write_json
from loadtests.samples import read_samples
from loadtests.servers import Server, gateway, running
from variants.repository import Repository

SAMPLE_EVERY_S = 0.02
PARTS = 10
ASK_METRICS_EVERY = 5
"""Requests between two looks at how many loads there were."""


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
    parser.add_argument("--one-base", action="store_true", help="the copies share their lookup tables")
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
    with tempfile.TemporaryDirectory(dir=given.models.resolve().parent) as folder:
        write_copies(repository, given.family, Path(folder), names, one_base=given.one_base)
        paths = [oip.infer_path(name, variant) for variant in sizes for name in names]
        found = churn(Path(folder), paths, messages, room_bytes, given.loads, given.seconds)
    Console().print(as_table(found))
    if given.output:
        write_json(given.output, {**found._asdict(), "excess": found.excess})


def churn(
    root: Path,
    paths: Sequence[str],
    messages: Sequence[tuple[Mapping[str, str], bytes]],
    room_bytes: int,
    loads: int,
    limit_s: float,
) -> Churned:
    """Ask at `paths` in turn until so many variants were loaded. Raises `httpx.HTTPError` on a refusal."""
    with running(gateway(root, {"PARETO_MEMORY_BUDGET": "1MiB", "PARETO_STAGES": "off"})) as server:
        empty_bytes = resident_bytes(server)
    budget_bytes = empty_bytes + room_bytes
    settings = {"PARETO_MEMORY_BUDGET": str(budget_bytes), "PARETO_STAGES": "off", "PARETO_LOG_LEVEL": "warning"}
    with running(gateway(root, settings)) as server, httpx.Client(base_url=server.url, timeout=600.0) as client:
        held: list[Held] = []
        loaded = 0
        started_s, requests = time.monotonic(), 0
        with ResidentWatch(serving_process(server), SAMPLE_EVERY_S, lambda now: held.append(Held(loaded, now))):
            while loaded < loads and time.monotonic() - started_s < limit_s:
                headers, body = messages[requests % len(messages)]
                client.post(paths[requests % len(paths)], content=body, headers=headers).raise_for_status()
                requests += 1
                if requests % ASK_METRICS_EVERY == 0:
                    loaded = counted(server, "pareto_model_loads_total")
        seconds = time.monotonic() - started_s
        evictions = counted(server, "pareto_model_evictions_total")
    return _churned(held, evictions, requests, seconds, empty_bytes, budget_bytes)


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
    held: Sequence[Held], evictions: int, requests: int, seconds: float, empty_bytes: int, budget_bytes: int
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
        most_bytes=int(resident.max()),
    )


if __name__ == "__main__":
    main()
