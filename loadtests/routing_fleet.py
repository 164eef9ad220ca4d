"""One gateway for each policy, all started and all but one frozen, so that policies can take turns run by run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from rich.console import Console

from loadtests import servers
from loadtests.fetch import fetch
from loadtests.routing_output import progress
from loadtests.routing_table import STATIC

PINS = "fastest"
"""The gateway that pinned requests go to: pinned, its policy is that of `fixed:<variant>`."""


class Fleet:
    """Gateways by policy, on the same cores; use as a context manager.

    `start` raises `servers.ServerError` where one does not start or lacks a variant.
    """

    def __init__(self, models: Path, settings: Mapping[str, str], cores: Sequence[int]) -> None:
        self._models = models
        self._settings = settings
        self._cores = cores
        self._servers: dict[str, servers.Server] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self._stack.close()

    def start(self, policy: str, family: str, variants: Sequence[str]) -> None:
        """Start the gateway of one policy and freeze it."""
        command = servers.gateway(self._models, {**self._settings, "PARETO_POLICY": policy})
        server = self._stack.enter_context(servers.running(command, self._cores))
        for name in variants:
            if fetch(f"{server.url}/v2/models/{family}/versions/{name}").status != 200:
                raise servers.ServerError(f"the gateway does not serve {family}/{name}; its log says why")
        server.freeze()
        self._servers[policy] = server

    def start_all(self, policies: Sequence[str], family: str, variants: Sequence[str], console: Console) -> None:
        """Start gateways that pinned requests and these policies need."""
        wanted = (PINS, *(policy for policy in policies if not policy.startswith(STATIC)))
        with progress(console) as bar:
            for policy in bar.track(tuple(dict.fromkeys(wanted)), description="gateways started"):
                self.start(policy, family, variants)

    @contextmanager
    def awake(self, policy: str) -> Iterator[servers.Server]:
        """The gateway of that policy, alone with the machine for as long as the block runs."""
        server = self._servers[policy]
        server.thaw()
        try:
            server.check()
            fetch(f"{server.url}/v2/health/ready")
            yield server
        finally:
            server.freeze()
