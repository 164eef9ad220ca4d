"""What gRPC costs beside HTTP, and what its port costs those who do not use it (`make bench-grpc`).

Two gateways serve the same family on one core, one of them with a gRPC port; h2load, on another core, asks in all ways
alike. The ways take turns, each gateway frozen while the other one is measured, and ratios are taken within a round.
How many requests were served is counted by the gateway: h2load takes every answer over gRPC for a good one.
"""

from __future__ import annotations

import argparse
import re
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
from prometheus_client.parser import text_string_to_metric_families

from loadtests import oip, servers
from loadtests.closedloop import GeneratorError
from loadtests.fetch import fetch
from loadtests.report import write_json
from loadtests.samples import Samples, read_samples
from variants.fingerprint import machine_fingerprint
from variants.repository import Repository, RepositoryError

METHOD = "/inference.GRPCInferenceService/ModelInfer"
OVER_HTTP = ("--h1", "-H", "content-type: application/json")
OVER_GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")
YARDSTICK = "HTTP"

_SERVED = re.compile(r"(\d+) succeeded")
_TIMES = re.compile(r"time for request:\s+\S+\s+\S+\s+([0-9.]+)(us|ms|s)")
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class Turn(NamedTuple):
    """What one way did in its turn: answers per second, mean seconds and the gateway's processor seconds for each."""

    per_s: float
    mean_s: float
    cpu_s: float


class Way(NamedTuple):
    """One way to ask a gateway; `shared`: all callers at a time on one connection."""

    server: servers.Server
    url: str
    body: Path
    protocol: Sequence[str]
    shared: bool = False


def grpc_message(samples: Samples, family: str) -> bytes:
    """A request for the first sample as gRPC sends it: raw tensors, behind a byte and the length.

    The numbers of fields are those of `ModelInferRequest`; all of them are below 16, so each tag is one byte.
    """
    message, blobs = _field(1, family.encode()), b""
    for name, values in samples.inputs.items():
        blob = np.ascontiguousarray(values[:1])
        shape = b"".join(map(_varint, blob.shape))
        message += _field(5, _field(1, name.encode()) + _field(2, samples.datatypes[name].encode()) + _field(3, shape))
        blobs += _field(7, blob.tobytes())
    message += blobs
    return b"\0" + struct.pack(">I", len(message)) + message


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def turn(way: Way, callers: int, options: argparse.Namespace) -> Turn:
    """Measure one way, and freeze its gateway again. Raises `GeneratorError` where not all requests were served."""
    way.server.thaw()
    _h2load(way, callers, 1, options.generator_cores)
    before_s, served_before = way.server.processor_s(), _served(way.server)
    asked, mean_s = _h2load(way, callers, options.seconds, options.generator_cores)
    used_s, served = way.server.processor_s() - before_s, _served(way.server) - served_before
    way.server.freeze()
    # Those on their way when h2load ends are served, too, and some of them counted later.
    if abs(served - asked) > 2 * callers:
        raise GeneratorError(f"{way.url}: {asked} asked, {served:.0f} served")
    return Turn(asked / options.seconds, mean_s, used_s / served)


def _h2load(way: Way, callers: int, seconds: int, cores: Sequence[int]) -> tuple[int, float]:
    """How many answers came, and the mean seconds of each."""
    width = ("-c", "1", "-m", str(callers)) if way.shared else ("-c", str(callers), "-m", "1")
    command = ["h2load", *width, "-D", str(seconds), "-d", str(way.body), *way.protocol, way.url]
    try:
        with servers.pinned(cores):
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise GeneratorError("h2load is not installed (on Debian: apt-get install nghttp2-client)") from None
    served, times = _SERVED.search(ran.stdout), _TIMES.search(ran.stdout)
    if served is None or times is None:
        raise GeneratorError(f"h2load: {(ran.stderr or ran.stdout).strip()[-200:]}")
    return int(served[1]), float(times[1]) * _UNITS_S[times[2]]


def _served(server: servers.Server) -> float:
    text = fetch(f"{server.url}/metrics").body.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "pareto_requests_total" and sample.labels["outcome"] in ("served", "served_late")
    )


def _run(options: argparse.Namespace) -> None:
    samples = read_samples(Repository(options.models).open(options.family))
    port = servers.free_port()
    # A machine that is busy for a moment makes answers late; refusing some would change what is measured.
    usual = {"PARETO_FAMILIES": orjson.dumps({options.family: {"when_late": "serve"}}).decode()}
    opened = {**usual, "PARETO_GRPC_PORT": str(port)}
    cores = options.server_cores
    rounds: dict[int, list[dict[str, Turn]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.running(servers.gateway(options.models, usual), cores) as closed,
        servers.running(servers.gateway(options.models, opened), cores) as both,
    ):
        resident = {"HTTP alone": closed.resident_bytes(), "with gRPC": both.resident_bytes()}
        json, message = Path(folder, "json"), Path(folder, "message")
        json.write_bytes(oip.infer_body(samples, 0, outputs=()))
        message.write_bytes(grpc_message(samples, options.family))
        path, method = oip.infer_path(options.family), f"http://127.0.0.1:{port}{METHOD}"
        ways = {
            YARDSTICK: Way(closed, closed.url + path, json, OVER_HTTP),
            "HTTP, gRPC port open": Way(both, both.url + path, json, OVER_HTTP),
            "gRPC": Way(both, method, message, OVER_GRPC),
            "gRPC, one connection": Way(both, method, message, OVER_GRPC, shared=True),
        }
        closed.freeze()
        both.freeze()
        for callers in options.callers:
            rounds[callers] = []
            for number in range(options.rounds):
                order = list(ways) if number % 2 == 0 else list(ways)[::-1]
                turns = {name: turn(ways[name], callers, options) for name in order}
                rounds[callers].append({name: turns[name] for name in ways})
                said = ", ".join(f"{name} {one.per_s:,.0f}/s" for name, one in rounds[callers][-1].items())
                sys.stdout.write(f"{callers} at a time, round {number + 1}: {said}\n")
                sys.stdout.flush()
        closed.thaw()
        both.thaw()
    text = "".join(table(callers, of_callers) for callers, of_callers in rounds.items())
    sys.stdout.write(f"{HEAD}{text}resident: {', '.join(f'{n} {b / 1e6:.0f} MB' for n, b in resident.items())}\n")
    context = {
        "machine": machine_fingerprint().description,
        "family": options.family,
        "seconds": options.seconds,
        "resident_bytes": resident,
        "rounds": {
            str(callers): [{name: one._asdict() for name, one in of_round.items()} for of_round in of_callers]
            for callers, of_callers in rounds.items()
        },
    }
    write_json(options.out / "grpc_cost.json", context)


COLUMNS = ("at a time", "way", "answers/s", f"x {YARDSTICK} (min-max)", "mean", "processor time")
HEAD = f"| {' | '.join(COLUMNS)} |\n|---:|---|---:|---:|---:|---:|\n"


def table(callers: int, rounds: Sequence[Mapping[str, Turn]]) -> str:
    """The medians of these rounds, as rows of a table in Markdown."""
    rows = []
    for name in rounds[0]:
        turns = [of_round[name] for of_round in rounds]
        ratios = [of_round[name].per_s / of_round[YARDSTICK].per_s for of_round in rounds]
        per_s, mean_s, cpu_s = (statistics.median(column) for column in zip(*turns, strict=True))
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        rows.append(f"| {callers} | {name} | {per_s:,.0f} | {ratio} | {mean_s * 1e3:.2f} ms | {cpu_s * 1e6:.0f} us |\n")
    return "".join(rows)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write `grpc_cost.json`. Ends with one line where that cannot be done."""
    parser = argparse.ArgumentParser(prog="bench-grpc", description="gRPC against HTTP, one gateway")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="digits", help="a tensor family (default digits)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each turn (default 3)")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16], help="at a time (default 1 and 16)")
    parser.add_argument("--server-cores", type=int, nargs="*", default=[0], help="none: not pinned (default 0)")
    parser.add_argument("--generator-cores", type=int, nargs="*", default=[1], help="none: not pinned (default 1)")
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    options = parser.parse_args(arguments)
    try:
        _run(options)
    except (GeneratorError, RepositoryError, servers.ServerError, OSError, ValueError) as error:
        sys.stdout.write(f"bench-grpc: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
