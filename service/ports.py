"""Whether a port can be listened on, and who is in the way."""

from __future__ import annotations

import errno
import socket

import psutil

OF_PORT = ("--host", "--port N, or PORT=N with make")


def occupant(host: str, port: int, options: tuple[str, str] = OF_PORT) -> str | None:
    """Why nothing can listen there and what to do, in one line; None where something can.

    `options` are what sets host and port.
    """
    host_option, port_option = options
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        return f"host {host!r}: {error.strerror}; see {host_option}"
    with socket.socket(family, kind, protocol) as probe:
        # As the server does: ports that only wait for their last packets are free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} on {host} is in use{listener(port)}; choose another with {port_option}"
            if error.errno == errno.EADDRNOTAVAIL:
                return f"host {host!r}: not an address of this machine; see {host_option}"
            return f"port {port} on {host} cannot be used: {error.strerror}; see {port_option} and {host_option}"
    return None


def listener(port: int) -> str:
    """The process that listens there, as " by NAME (process ID)"; "" where this user may not know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
