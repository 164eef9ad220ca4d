"""The memory that bodies of requests may take, whichever protocol they come by."""

from __future__ import annotations

from service.oip.errors import ProtocolError


class InflightBytes:
    """Counts what is held of `limit_bytes`; what does not fit is refused."""

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def hold(self, wanted_bytes: int) -> int:
        """Reserve memory, to be given back with `release`; returns `wanted_bytes`. Raises `ProtocolError` 503."""
        if self.held_bytes + wanted_bytes > self.limit_bytes:
            raise ProtocolError(
                503, "too many bytes in flight, try again later", reason="backlog_full", retry_after_s=1
            )
        self.held_bytes += wanted_bytes
        return wanted_bytes

    def release(self, held_bytes: int) -> None:
        """Give back what was reserved."""
        self.held_bytes -= held_bytes
