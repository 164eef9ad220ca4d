"""What `bentoml serve service.bento:svc` and `bentoml build` load: BentoML's service with the data plane in front.

Settings come from the environment and `pareto.toml`, so the same module serves under `pareto serve`, plain
`bentoml serve` and from the Bento store.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from uvicorn.config import HTTP_PROTOCOLS

from service.admin_access import is_loopback
from service.configuration import SettingsError, load_settings
from service.connections import bounded
from service.crash_marker import CrashMarker
from service.cross_origin import cross_origin
from service.dataplane import NATIVE_PAGE, DataPlane
from service.exchange import AsgiApp
from service.gate import gated
from service.gateway import Gateway
from service.key_file import holds_plain_secrets_for_all, read_keys
from service.logs import configure_logs
from service.native import NativeApi, bind
from service.ports import occupant
from service.respawn import look_often
from service.settings import Settings
from service.tls import check_certificate

logger = logging.getLogger("pareto.bento")

STATIC = Path(bentoml.__file__).parent / "_internal" / "server" / "static_content"
BENTO_PATHS = frozenset(
    {NATIVE_PAGE, "/docs.json", "/schema.json", *(f"/static_content/{file.name}" for file in STATIC.glob("*.*"))}
)
"""What BentoML answers beside the native API: its page, and the files by name that the page needs."""


def _settings() -> Settings:
    """Read the settings when BentoML's supervisor imports this module: a fault ends the server, in one line."""
    try:
        settings = load_settings()
        keys = read_keys(settings.keys_file)
        check_certificate(settings)
    except SettingsError as error:
        sys.exit(f"pareto: {error}")
    # BentoML has set up its own by now, in the supervisor and in the process that serves.
    configure_logs(settings)
    if settings.keys_file is not None and holds_plain_secrets_for_all(settings.keys_file):
        logger.warning("%s: everybody on this machine may read the keys in it: chmod o-r", settings.keys_file)
    if keys is None and settings.admin and not is_loopback(settings.host):
        logger.warning("admin: there are no API keys, so models can be changed from this machine alone")
    return settings


SETTINGS = _settings()


class GatewayService(bentoml.Service[NativeApi]):  # type: ignore[misc]  # BentoML exports it without a type
    """A BentoML service whose outermost ASGI app is the data plane."""

    def to_asgi(self, is_main: bool = True) -> AsgiApp:
        """The app that BentoML's worker hands to uvicorn."""
        # Executors in processes are the ones that models end.
        marker = CrashMarker.of_supervisor(SETTINGS.slot_count) if SETTINGS.isolation == "threads" else None
        gateway = Gateway(SETTINGS, marker=marker)
        bind(gateway)
        inner: AsgiApp = super().to_asgi(is_main)
        routes = frozenset(method.route for method in self.apis.values())
        if SETTINGS.ssl_certfile is not None and "--ssl-certfile" not in sys.argv:
            logger.error("ssl_certfile: without --ssl-certfile BentoML serves HTTP; `pareto serve` hands it on")
        if SETTINGS.grpc_port is not None and SETTINGS.ssl_certfile is None and "--ssl-certfile" in sys.argv:
            logger.warning("grpc_port: gRPC speaks plain text where the setting ssl_certfile names no certificate")
        # BentoML makes uvicorn's configuration itself, which takes the protocol from here.
        HTTP_PROTOCOLS["auto"] = bounded(gateway.connections)  # type: ignore[assignment]  # a class does as well as a name
        plane = gated(DataPlane(gateway, inner, BENTO_PATHS | routes), gateway)
        return cross_origin(plane, SETTINGS.cors_origins)


class Api(NativeApi):
    """The native API, and what BentoML's supervisor is to do before it starts the process that serves."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]  # BentoML's decorator has no types
    @staticmethod
    def check_grpc_port() -> None:
        """End the server, in one line, where gRPC's port is taken: it would come up and never be ready."""
        options = "`host`", "`grpc_port`"
        if SETTINGS.grpc_port is not None and (taken := occupant(SETTINGS.host, SETTINGS.grpc_port, options)):
            sys.exit(f"pareto: {taken}")

    @bentoml.on_deployment  # type: ignore[untyped-decorator]  # BentoML's decorator has no types
    @staticmethod
    def look_often() -> None:
        """Have BentoML's supervisor notice soon that the process that serves has ended."""
        look_often()


svc = GatewayService(
    name="pareto_gateway",
    inner=Api,
    config={
        # The scheduler's state is the process's own: one worker, and more replicas for more capacity.
        "workers": 1,
        # BentoML keeps every request alive for this long; it only sees the native API here.
        "traffic": {"timeout": 60},
        "metrics": {"enabled": False},
    },
)
