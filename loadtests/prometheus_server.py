"""A real Prometheus as a child process that scrapes gateways on this machine; Debian's package `prometheus` has it."""

from __future__ import annotations

import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from loadtests.fetch import fetch
from loadtests.servers import Command, Server, ServerError, running

PROGRAM = "prometheus"
NOT_INSTALLED = f"{PROGRAM} (Debian package prometheus) is not installed"


def is_installed() -> bool:
    """Whether there is a Prometheus to start."""
    return shutil.which(PROGRAM) is not None


@dataclass(frozen=True, slots=True)
class Scraper:
    """A Prometheus that runs; it scrapes what it is told to, at any time, as job `pareto-gateway`."""

    server: Server
    targets: Path

    def scrape(self, *targets: str) -> None:
        """Scrape these `host:port` from now on, and no others."""
        # Renamed into its place: it is read as soon as it changes.
        written = self.targets.with_suffix(".new")
        written.write_bytes(orjson.dumps([{"targets": targets}]))
        written.rename(self.targets)

    def value(self, expression: str) -> float | None:
        """What an expression of one sample is now, `None` where it has none. Raises `OSError`."""
        query = urllib.parse.urlencode({"query": expression})
        answer = fetch(f"{self.server.url}/api/v1/query?{query}")
        found = orjson.loads(answer.body)["data"]["result"]
        return float(found[0]["value"][1]) if found else None


@contextmanager
def prometheus(every: str = "1s", rules: Sequence[Path] = ()) -> Iterator[Scraper]:
    """A server that scrapes, and evaluates the rules, every so often.

    Its data is gone at the end. Raises `ServerError` where it is not installed or does not start.
    """
    if not is_installed():
        raise ServerError(NOT_INSTALLED)
    with tempfile.TemporaryDirectory() as folder:
        config, targets = Path(folder, "prometheus.yml"), Path(folder, "targets.json")
        lines = [
            "global:",
            f"  scrape_interval: {every}",
            f"  scrape_timeout: {every}",
            f"  evaluation_interval: {every}",
            "rule_files:",
            *(f"  - {rule.resolve()}" for rule in rules),
            "scrape_configs:",
            "  - job_name: pareto-gateway",
            "    file_sd_configs:",
            f"      - files: [{targets}]",
            "        refresh_interval: 1s",
        ]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        arguments = (
            PROGRAM,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            "--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        )
        with running(Command(PROGRAM, arguments, ready_path="/-/ready")) as server:
            yield Scraper(server, targets)
