"""The gateway as an application of Ray Serve: the same ASGI app, in replicas that Ray spreads over a cluster.

`serve run deploy.ray.app:gateway replicas=3 cores=2`, or `serve run deploy/ray/serve.yaml`: docs/fleet.md. Settings are
read as ever, from variables and a file: with the first command where it is given, with the second on a node, from what
the configuration says. They travel to the replicas. A replica is healthy while it is ready, and drains when Ray takes
it down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from deploy.ray.variables import variables_of
from service.configuration import load_settings

READY_URL = "http://replica/v2/health/ready"
LOADING_STEP_S = 0.05
HEALTH_EVERY_S = 2.0
END_MARGIN_S = 5.0
"""On top of the drain time, before Ray kills a replica that does not end."""

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class Options(BaseModel):
    """What `serve run` takes as `name=value`, and a configuration as `args`."""

    model_config = ConfigDict(extra="forbid")

    replicas: int = Field(default=2, ge=1, le=1000)
    cores: int = Field(default=1, ge=1, le=1024)
    """Of each replica: Ray finds a node that has so many free. So many batches run at a time, but with devices."""


@serve.deployment(name="replica")
@serve.ingress()
class Replica:
    """One replica, in a process that Ray started with the settings in its environment."""

    def __init__(self) -> None:
        self._app: AsgiApp | None = None
        self._was_ready = False

    def __serve_build_asgi_app__(self) -> AsgiApp:
        # Here, and not where the application is described: it reads the settings and opens BentoML's service.
        from service.bento import svc  # noqa: PLC0415 - see above

        self._app = svc.to_asgi()
        return self._app

    async def check_health(self) -> None:
        """Raises `RuntimeError` where the replica is not ready; asked for the first time, it waits while it loads."""
        while (said := await self._unready()) is not None:
            if self._was_ready or "nothing to serve" in said:
                raise RuntimeError(said)
            await asyncio.sleep(LOADING_STEP_S)
        self._was_ready = True

    async def _unready(self) -> str | None:
        """What the replica says where it is not ready."""
        assert self._app is not None, "Ray asks once the app is built"
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self._app)) as client:
            answer = await client.get(READY_URL)
        return None if answer.is_success else answer.text


def gateway(arguments: Mapping[str, Any]) -> Application:
    """The application, with what `Options` takes.

    Raises `ValidationError` for other arguments, and `SettingsError` where the settings cannot be used.
    """
    options = Options.model_validate(arguments)
    settings = load_settings()
    return Replica.options(  # type: ignore[attr-defined]  # its decorator makes the class a deployment
        num_replicas=options.replicas,
        # The gateway has a queue, and refuses what would be late; Ray's would hide how much waits.
        max_ongoing_requests=settings.backlog,
        ray_actor_options={
            "num_cpus": options.cores,
            "runtime_env": {"env_vars": variables_of(settings, options.cores)},
        },
        health_check_period_s=HEALTH_EVERY_S,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=settings.drain_s + END_MARGIN_S,
    ).bind()
