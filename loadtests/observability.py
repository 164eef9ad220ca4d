"""What observing the gateway costs: traces, access log and scrapes, on against off (`make bench-observability`).

Two gateways serve the same family on one core, one of them observed; the generator has another core. They take turns,
each frozen while the other one is measured, and the order changes from round to round; ratios are taken within a round.
Beside throughput stand processor seconds for each request, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import orjson

from loadtests import oip, servers
from loadtests.closedloop import GeneratorError, measure
from loadtests.fetch import fetch
from loadtests.report import write_json
from loadtests.samples import read_samples
from variants.fingerprint import machine_fingerprint
from variants.repository import Repository, RepositoryError

WARM_UP_S = 1
SCRAPE_EVERY_S = 5.0
"""As the configuration in deploy/prometheus has it."""
GOAL = 0.05
"""Of throughput, at most."""


class Turn(NamedTuple):
    """What one gateway did in its turn: requests per second, and processor seconds of its processes for each."""

    per_s: float
    cpu_s: float


@contextmanager
def collecting() -> Iterator[tuple[str, list[int]]]:
    """The URL of a collector that takes everything, and the sizes of what it was sent."""
    taken: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            taken.append(len(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def scraped(url: str) -> Iterator[None]:
    """Read a gateway's metrics now and again, as a Prometheus does."""
    stop = threading.Event()

    def scrape() -> None:
        while True:
            fetch(f"{url}/metrics")
            if stop.wait(SCRAPE_EVERY_S):
                return

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield
    finally:
        stop.set()
        scraper.join()


def turn(server: servers.Server, path: str, body: bytes, options: argparse.Namespace, *, observed: bool) -> Turn:
    """Measure one gateway, and freeze it again."""
    server.thaw()
    ask = (server.url + path, body, options.connections)
    measure(*ask, WARM_UP_S, options.generator_cores)
    before_s = server.processor_s()
    if observed:
        with scraped(server.url):
            ran = measure(*ask, options.seconds, options.generator_cores)
    else:
        ran = measure(*ask, options.seconds, options.generator_cores)
    used_s = server.processor_s() - before_s
    server.freeze()
    return Turn(ran.per_s, used_s / ran.requests)


def _run(options: argparse.Namespace) -> None:
    samples = read_samples(Repository(options.models).open(options.family))
    path, body = oip.infer_path(options.family), oip.infer_body(samples, 0, outputs=())
    rounds: list[tuple[Turn, Turn]] = []
    with collecting() as (collector, taken):
        share = str(options.share)
        # A machine that is busy for a moment makes answers late; refusing some would change what is measured.
        usual = {"PARETO_FAMILIES": orjson.dumps({options.family: {"when_late": "serve"}}).decode()}
        observing = {
            **usual,
            "PARETO_TRACES_ENDPOINT": collector,
            "PARETO_TRACES_SHARE": share,
            "PARETO_ACCESS_LOG_SHARE": share,
            "PARETO_LOG_FORMAT": "json",
        }
        cores = options.server_cores
        with (
            servers.running(servers.gateway(options.models, usual), cores) as plain,
            servers.running(servers.gateway(options.models, observing), cores) as observed,
        ):
            plain.freeze()
            observed.freeze()
            for number in range(options.rounds):
                if number % 2:
                    on = turn(observed, path, body, options, observed=True)
                    off = turn(plain, path, body, options, observed=False)
                else:
                    off = turn(plain, path, body, options, observed=False)
                    on = turn(observed, path, body, options, observed=True)
                rounds.append((off, on))
                change = on.per_s / off.per_s - 1
                sys.stdout.write(
                    f"round {number + 1}: off {off.per_s:,.0f}/s, on {on.per_s:,.0f}/s ({change:+.1%}); "
                    f"processor {off.cpu_s * 1e6:.1f} and {on.cpu_s * 1e6:.1f} us a request\n"
                )
                sys.stdout.flush()
            observed.thaw()
            plain.thaw()
        if options.share and not taken:
            raise GeneratorError("no span has come to the collector: nothing was measured")
    lost = [1 - on.per_s / off.per_s for off, on in rounds]
    more = [on.cpu_s / off.cpu_s - 1 for off, on in rounds]
    for what, shares in (("throughput lost", lost), ("processor time added", more)):
        sys.stdout.write(f"{what}: {statistics.median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})\n")
    sys.stdout.write(f"goal: less than {GOAL:.0%} of throughput; {len(taken)} batches of spans were taken\n")
    context = {
        "machine": machine_fingerprint().description,
        "family": options.family,
        "connections": options.connections,
        "seconds": options.seconds,
        "share": options.share,
        "throughput_lost": lost,
        "processor_time_added": more,
        "rounds": [{"off": off._asdict(), "on": on._asdict()} for off, on in rounds],
    }
    write_json(options.out / "observability.json", context)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write `observability.json`. Ends with one line where that cannot be done."""
    parser = argparse.ArgumentParser(prog="bench-observability", description="what observing the gateway costs")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="digits", help="a tensor family (default digits)")
    parser.add_argument("--share", type=float, default=0.01, help="of requests traced and logged (default 0.01)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=5, help="of each turn (default 5)")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--server-cores", type=int, nargs="*", default=[0], help="none: not pinned (default 0)")
    parser.add_argument("--generator-cores", type=int, nargs="*", default=[1], help="none: not pinned (default 1)")
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    options = parser.parse_args(arguments)
    try:
        _run(options)
    except (GeneratorError, RepositoryError, servers.ServerError, OSError, ValueError) as error:
        sys.stdout.write(f"bench-observability: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
