"""The certificate of the gRPC port: that of the HTTP port, renewed with it."""

from __future__ import annotations

from typing import Any

import grpc

from service.configuration import SettingsError
from service.connections import Connections
from service.settings import Settings
from service.tls import Pair, checked_pair


class Certificate:
    """What the files that `ssl_certfile` and `ssl_keyfile` name held when the certificate was last renewed."""

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._settings = settings
        self._connections = connections
        self._shown: Pair | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """What a port speaks TLS with. Raises `OSError` for files that cannot be used."""
        # Its types know of no answer that means "go on with the last one", which its documentation has.
        fetch: Any = self.fetch
        try:
            return grpc.dynamic_ssl_server_credentials(_configuration(checked_pair(self._settings)), fetch)
        except SettingsError as error:
            raise OSError(0, str(error)) from None

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked at each handshake, by a thread of gRPC's: another configuration, or none to go on with the last one."""
        renewed = self._connections.renewed
        if renewed is None or renewed is self._shown:
            return None
        configuration = _configuration(renewed)
        self._shown = renewed
        return configuration


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([pair])
