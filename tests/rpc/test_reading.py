"""Messages are read within the memory that there is for bodies; calls that would need more wait for their turn."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from service.inflight import InflightBytes
from service.oip.errors import ProtocolError
from service.rpc.open_inference_pb2 import ModelReadyRequest
from service.rpc.reading import SMALL_BYTES, MessageReader, parse

LIMIT_BYTES = 100


class Sender:
    """Stands in for a call's context: its message comes when the test says so."""

    def __init__(self) -> None:
        self.message: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked = False

    async def read(self) -> Any:
        self.asked = True
        return await self.message


def reading(reader: MessageReader, sender: Sender) -> asyncio.Task[bytes]:
    call: Any = sender
    return asyncio.create_task(reader.read(call))


async def settled() -> None:
    """Every task has run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def _turns() -> None:
    inflight = InflightBytes(4 * LIMIT_BYTES)
    reader = MessageReader(inflight, LIMIT_BYTES)
    senders = [Sender() for _ in range(4)]
    tasks = [reading(reader, sender) for sender in senders]
    await settled()
    assert [sender.asked for sender in senders] == [True, True, False, False]
    assert inflight.held_bytes == 2 * LIMIT_BYTES
    senders[1].message.set_result(b"b")
    await settled()
    assert [sender.asked for sender in senders] == [True, True, True, False]
    tasks[0].cancel()
    await settled()
    assert [sender.asked for sender in senders] == [True] * 4
    senders[2].message.set_result(b"c")
    senders[3].message.set_result(grpc.aio.EOF)
    assert [await tasks[1], await tasks[2]] == [b"b", b"c"]
    with pytest.raises(ProtocolError, match="expected one, got none"):
        await tasks[3]
    assert inflight.held_bytes == 0


def test_calls_are_read_in_turns() -> None:
    """As many at a time as half of the memory holds; who has it, goes or fails makes room for the next."""
    asyncio.run(_turns())


async def _no_room() -> int:
    inflight = InflightBytes(2 * LIMIT_BYTES)
    inflight.hold(LIMIT_BYTES + 1)
    with pytest.raises(ProtocolError) as caught:
        await reading(MessageReader(inflight, LIMIT_BYTES), Sender())
    assert inflight.held_bytes == LIMIT_BYTES + 1
    return caught.value.status


def test_a_call_for_which_others_leave_no_room_is_refused() -> None:
    """What has been read, and bodies over HTTP, count as well."""
    assert asyncio.run(_no_room()) == 503


async def _late(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("service.rpc.reading.BODY_TIMEOUT_S", 0.01)
    with pytest.raises(ProtocolError) as caught:
        await reading(MessageReader(InflightBytes(1000), LIMIT_BYTES), Sender())
    return caught.value.status


def test_a_message_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody keeps a turn for ever."""
    assert asyncio.run(_late(monkeypatch)) == 408


async def _long() -> int:
    sender = Sender()
    sender.message.set_result(bytes(SMALL_BYTES + 1))
    call: Any = sender
    with pytest.raises(ProtocolError) as caught:
        await MessageReader(InflightBytes(10**6), 10**5).read_small(ModelReadyRequest, call)
    return caught.value.status


def test_a_message_without_tensors_is_short() -> None:
    """As the bodies of such requests over HTTP."""
    assert asyncio.run(_long()) == 413


def test_what_is_no_message_is_a_400() -> None:
    """Neither a traceback nor UNKNOWN."""
    with pytest.raises(ProtocolError, match="expected a ModelReadyRequest"):
        parse(ModelReadyRequest, b"\x0a\xff")
