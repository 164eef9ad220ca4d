"""A real Prometheus as a child process, with the shipped rules, scraping one gateway many times a second."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from loadtests.fetch import fetch
from loadtests.servers import ROOT, free_port
from tests.service.conftest import eventually

SHIPPED = ROOT / "deploy" / "prometheus"
EVERY = "500ms"


class Prometheus:
    """A running server at `url`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def values(self, expression: str) -> list[float]:
        """The values of an instant query that are numbers. Raises `ValueError` where it is not sound."""
        answer = fetch(f"{self.url}/api/v1/query?{urlencode({'query': expression})}")
        said: dict[str, Any] = json.loads(answer.body)
        if said["status"] != "success":
            raise ValueError(f"{expression}: {said['error']}")
        values = (float(series["value"][1]) for series in said["data"]["result"])
        return [value for value in values if not math.isnan(value)]

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return fetch(f"{self.url}/-/ready").status == 200
        except OSError:
            return False


@contextmanager
def prometheus(folder: Path, target: str, port: int | None = None) -> Iterator[Prometheus]:
    """A server with the shipped configuration but for how often it looks, and at whom: `target`, host and port.

    Its series have the labels of a pod, as those that the Prometheus operator scrapes.
    """
    rule_files = re.findall(r"^  - (\w+\.yml)$", (SHIPPED / "prometheus.yml").read_text(), flags=re.MULTILINE)
    for file in rule_files:
        rules = (SHIPPED / file).read_text()
        # Groups over days look once a minute, and so long no test can wait.
        (folder / file).write_text(re.sub(r"^( +)interval: .*$", rf"\1interval: {EVERY}", rules, flags=re.MULTILINE))
    found = {"targets": [target], "labels": {"namespace": "pareto", "pod": "pareto-gateway-0"}}
    configuration = {
        "global": {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY},
        "rule_files": rule_files,
        "scrape_configs": [{"job_name": "pareto-gateway", "static_configs": [found]}],
    }
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    server = Prometheus(port or free_port())
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={server.url.removeprefix('http://')}",
        "--log.level=error",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            eventually(server.is_ready, f"Prometheus is ready, see {folder / 'log'}")
            yield server
        finally:
            process.terminate()
            process.wait(30.0)
