"""`pareto serve`: check, build if asked to, start the server, say where it is, and wait for its end."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.build import build_then_begin_anew
from service.commands.failure import CommandError, faults_of_the_repository
from service.commands.options import Config, Models, settings_from
from service.interrupts import ended_at_once

if TYPE_CHECKING:
    from service.settings import Settings


def serve(
    port: Annotated[
        int | None, typer.Option("--port", "-p", metavar="N", help="Port (setting `port`).", show_default=False)
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Address (setting `host`).", show_default=False)
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option("--grpc-port", metavar="N", help="Port for gRPC (setting `grpc_port`).", show_default=False),
    ] = None,
    models: Models = None,
    config: Config = None,
    ssl_certfile: Annotated[
        Path | None,
        typer.Option("--ssl-certfile", metavar="FILE", help="Certificate (`ssl_certfile`): HTTPS.", show_default=False),
    ] = None,
    ssl_keyfile: Annotated[
        Path | None,
        typer.Option("--ssl-keyfile", metavar="FILE", help="Its private key (`ssl_keyfile`).", show_default=False),
    ] = None,
    build_if_empty: Annotated[
        str | None,
        typer.Option(
            "--build-if-empty",
            metavar="NAME",
            help="Build this family first where the repository is empty.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve the families of the model repository over HTTP, and gRPC where it has a port, until SIGINT or SIGTERM."""
    flags = {
        "port": port,
        "host": host,
        "grpc_port": grpc_port,
        "models": models,
        "ssl_certfile": ssl_certfile,
        "ssl_keyfile": ssl_keyfile,
    }
    with ended_at_once():
        from service.banner import banner
        from service.configuration import SOURCES, sources
        from service.supervision import ServerDiedError, SupervisedServer, fault_of

        settings = settings_from(config, **flags)
        _check(settings)
        has_families = _has_families(settings)
    if not has_families:
        _fill(settings, build_if_empty)
    started_s = time.monotonic()
    os.environ[SOURCES] = sources(config, flags)
    with SupervisedServer(settings) as server:
        try:
            server.wait_until_ready()
            if not server.stopping:
                with faults_of_the_repository():
                    took_s = time.monotonic() - started_s
                    banner(
                        settings,
                        took_s,
                        fault_of=partial(fault_of, settings),
                        lack=server.lack_of_room(),
                        refused=server.refused(),
                    )
            code = server.wait()
        except ServerDiedError as error:
            raise CommandError(str(error), error.exit_code) from error
    raise typer.Exit(code)


def _check(settings: Settings) -> None:
    """Raise `CommandError` where these settings cannot be served."""
    from service.configuration import SettingsError
    from service.foreseen import check_cores_of
    from service.key_file import read_keys
    from service.ports import occupant
    from service.tls import check_certificate

    try:
        read_keys(settings.keys_file)
        check_certificate(settings)
        check_cores_of(settings)
    except SettingsError as error:
        raise CommandError(str(error), exit_code=2) from error
    if taken := occupant(settings.host, settings.port):
        raise CommandError(taken)
    if settings.grpc_port is not None and (
        taken := occupant(settings.host, settings.grpc_port, ("--host", "--grpc-port"))
    ):
        raise CommandError(taken)
    if settings.admin_port is not None and (
        taken := occupant(settings.admin_host, settings.admin_port, ("`admin_host`", "`admin_port`"))
    ):
        raise CommandError(taken)


def _has_families(settings: Settings) -> bool:
    """Whether the repository has any; raise `CommandError` where they are not what the policy wants of them."""
    from service.configuration import SettingsError
    from service.foreseen import check_policy
    from variants.repository import Repository

    repository = Repository(settings.models)
    try:
        with faults_of_the_repository():
            if not repository.families():
                return False
            check_policy(settings, repository)
    except SettingsError as error:
        raise CommandError(str(error), exit_code=2) from error
    return True


def _fill(settings: Settings, family: str | None) -> None:
    """Build this family, then begin anew. Raises `CommandError`, also where none is named."""
    if family is None:
        lack = "holds no family to serve" if settings.models.is_dir() else "there is no such folder"
        raise CommandError(
            f"{settings.models}: {lack}; build a family with `pareto build` or name another repository with --models"
        )
    build_then_begin_anew(family, settings.models)
