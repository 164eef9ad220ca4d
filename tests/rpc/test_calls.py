"""Refusals as clients can read them."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from service.oip.errors import ProtocolError
from service.rpc.calls import MOST_DETAILS_BYTES, refuse


class Refused:
    """Stands in for a call's context: keeps what the call is ended with."""

    async def abort(self, code: grpc.StatusCode, details: str, metadata: object) -> None:
        self.code, self.details, self.metadata = code, details, metadata


@pytest.mark.parametrize("letter", ["a", "ä", "漢", "\ud800"])
def test_details_are_cut(letter: str) -> None:
    """Those that list hundreds of models would be more than a client takes, which then sees neither code nor reason."""
    context: Any = Refused()
    ending: Any = refuse(context, ProtocolError(404, 3000 * letter), [])
    asyncio.run(ending)
    assert context.code is grpc.StatusCode.NOT_FOUND
    assert MOST_DETAILS_BYTES - 3 <= len(context.details.encode()) <= MOST_DETAILS_BYTES + 3
    assert context.details.endswith("...")
