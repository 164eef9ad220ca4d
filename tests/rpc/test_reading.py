"""Messages are read within the memory that there is for bodies; who says nothing keeps nobody else from being read."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from service.exchange import SMALL_BYTES
from service.inflight import InflightBytes
from service.oip.errors import ProtocolError
from service.rpc.open_inference_pb2 import ModelReadyRequest
from service.rpc.reading import MessageReader, parse

LIMIT_BYTES = 100


class Sender:
    """Stands in for a call's context: its message comes when the test says so."""

    def __init__(self, connection: str = "") -> None:
        self.connection = connection or str(id(self))
        self.message: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked = False

    def peer(self) -> str:
        return self.connection

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


def test_messages_that_come_take_half_of_the_memory_at_most() -> None:
    """Who has its message, goes or fails makes room for the next."""
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


async def _silent() -> None:
    inflight = InflightBytes(8 * LIMIT_BYTES)
    reader = MessageReader(inflight, LIMIT_BYTES)
    silent = [reading(reader, Sender("silent")) for _ in range(20)]
    probes: list[Any] = [Sender("silent") for _ in range(20)]
    unsaid = [asyncio.create_task(reader.read_small(ModelReadyRequest, probe)) for probe in probes]
    await settled()
    assert (inflight.held_bytes, sum(probe.asked for probe in probes)) == (2 * LIMIT_BYTES, 1)
    said, probe = Sender("other"), Sender("other")
    call: Any = probe
    message, probed = reading(reader, said), asyncio.create_task(reader.read_small(ModelReadyRequest, call))
    said.message.set_result(b"tensors")
    probe.message.set_result(ModelReadyRequest(name="f").SerializeToString())
    assert (await message, (await probed).name) == (b"tensors", "f")
    for task in (*silent, *unsaid):
        task.cancel()


def test_a_connection_that_says_nothing_keeps_no_other_from_being_read() -> None:
    """It has a part of the turns, however many calls it begins; probes take nothing of the memory for tensors."""
    asyncio.run(_silent())


async def _full() -> str:
    inflight = InflightBytes(2 * LIMIT_BYTES)
    inflight.hold(2 * LIMIT_BYTES)
    sender = Sender()
    sender.message.set_result(ModelReadyRequest(name="f").SerializeToString())
    call: Any = sender
    return (await MessageReader(inflight, LIMIT_BYTES).read_small(ModelReadyRequest, call)).name


def test_a_probe_is_read_when_bodies_fill_the_memory() -> None:
    """A replica that is busy is not one that is ill."""
    assert asyncio.run(_full()) == "f"


async def _ended() -> bool:
    sender = Sender()
    sender.message.set_result(grpc.aio.EOF)
    task = reading(MessageReader(InflightBytes(1000), LIMIT_BYTES), sender)
    await settled()
    task.cancel()
    await asyncio.wait((task,))
    return task.cancelled()


def test_a_call_that_has_ended_is_no_call_without_a_message() -> None:
    """Both read alike at first; the one is cancelled right then, and nothing is counted."""
    assert asyncio.run(_ended())


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
