"""The certificate of the gRPC port: that of the HTTP port, renewed with it."""

from __future__ import annotations

import logging
from typing import Any

import grpc

from service.connections import Connections
from service.settings import Settings

logger = logging.getLogger("pareto.rpc")


class Certificate:
    """The files that `ssl_certfile` and `ssl_keyfile` name, as they were when the certificate was last renewed."""

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._settings = settings
        self._connections = connections
        self._read = 0

    def credentials(self) -> grpc.ServerCredentials:
        """What a port speaks TLS with. Raises `OSError` for a file that cannot be read."""
        # Its types know of no answer that means "go on with the last one", which its documentation has.
        fetch: Any = self._fetch
        return grpc.dynamic_ssl_server_credentials(self._configuration(), fetch)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        certificate, key = self._settings.ssl_certfile, self._settings.ssl_keyfile
        assert certificate is not None, "TLS is spoken only where there is a certificate"
        try:
            pair = (key or certificate).read_bytes(), certificate.read_bytes()
        except OSError as error:
            raise OSError(error.errno, f"ssl_certfile: {error.filename}: {error.strerror}") from None
        return grpc.ssl_server_certificate_configuration([pair])

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked at each handshake, by a thread of gRPC's: another configuration, or none to go on with the last one."""
        renewals = self._connections.renewals
        if renewals == self._read:
            return None
        self._read = renewals
        try:
            return self._configuration()
        except OSError as error:
            logger.error("%s; gRPC goes on with the certificate that it has", error.strerror)
            return None
