"""Loads for which nobody was there to open a model: they say nothing of it, and are made again later."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from pathlib import Path
from typing import Any

import onnx
import orjson
import psutil
import pytest

from router.contract import Slot
from router.policies import policy_named
from router.scheduler import Scheduler
from service.footprint import OwnFootprint
from service.loading import sample_rows
from service.paths import NotNowError, PathOpener
from service.piecewise import PiecewiseFamily
from service.processes.conversation import Conversation
from service.processes.host import Host
from service.processes.messages import NOT_NOW, Close, Open, ToTemplate, pair
from service.processes.models import HostedModel, HostedSession
from service.processes.template import Template
from service.residency import Residency
from service.shared_tokenizers import open_shared
from tests.service.families import sign_model, write_family
from tests.service.test_killed_loads import failing_while
from variants.repository import Repository
from variants.runtimes.table import ONNXRUNTIME
from variants.session import SessionOptions


def test_a_model_that_is_closed_while_there_is_no_template_is_not_opened_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closes it cannot tell anybody; the next template is told once it has it."""
    path = tmp_path / "sound.onnx"
    onnx.save(sign_model(), path)
    told: list[ToTemplate] = []
    send = Conversation.send

    class Closing(Host):
        """Somebody closes each model just when the next template is asked to open it again."""

        def _ask(self, number: int, told: ToTemplate, wait_s: float = 0.0) -> dict[str, Any]:
            if self._restarting is not None:
                self._open.pop(number)
            return super()._ask(number, told, wait_s)

    def watched(talk: Conversation, one: ToTemplate, files: list[int] | None = None) -> bool:
        told.append(one)
        return send(talk, one, files)

    async def run() -> int:
        host = Closing()
        host.start()
        try:
            number, *_ = await asyncio.to_thread(host.open, path, SessionOptions(), (), ONNXRUNTIME)
            psutil.Process(host.process).kill()
            async with asyncio.timeout(30.0):
                while host.is_up:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.001)
            assert await asyncio.to_thread(host.wait_until_up)
        finally:
            host.stop()
        return number

    monkeypatch.setattr(Conversation, "send", watched)
    number = asyncio.run(run())
    assert [Open, Open, Close] == [type(one) for one in told]
    assert Close(number) == told[-1]


def test_a_template_without_room_for_a_process_says_nothing_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be opened apart from the others, now; and where nobody can run it, it is not what fails."""

    def full() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    ours, its = pair()
    monkeypatch.setattr(os, "fork", full)
    Template(its)._obey(Open(1, tmp_path / "model.onnx", SessionOptions(), (), ONNXRUNTIME, careful=True), [])
    what, number, said = orjson.loads(ours.recv(1000))
    assert ("opened", 1, True) == (what, number, said[NOT_NOW])

    class Gone(Host):
        def __init__(self) -> None:
            self._stopped = False

        def wait_until_up(self) -> bool:
            return False

        def let_go_soon(self, number: int) -> None:
            pass

        def _ask(self, number: int, told: ToTemplate, wait_s: float = 0.0) -> dict[str, Any]:
            return dict(said)

    host = Gone()
    host._open, host._numbers = {}, itertools.count()
    with pytest.raises(NotNowError, match="no process to open it: Resource temporarily"):
        host.open(tmp_path / "model.onnx", SessionOptions(), (), ONNXRUNTIME)
    model = HostedModel(host, 1, {"input_names": ["x"], "output_names": ["logits"]}, 0)
    write_family(Repository(tmp_path), "f", {"only": (sign_model(), 0.8)})
    folder = Repository(tmp_path).open("f")
    preparer = open_shared(folder)
    opener = PathOpener(
        folder,
        preparer,
        SessionOptions(),
        sample_rows(folder, preparer),
        staged=False,
        open_one=lambda *_: HostedSession(tmp_path, model, 0.0, 0),
    )
    with pytest.raises(NotNowError):
        opener.open(folder.manifest.variants[0])


def test_a_variant_that_nobody_could_open_is_not_refused(tmp_path: Path) -> None:
    """There was no process to open it: that says nothing of the variant, which is loaded later, and by itself."""
    write_family(Repository(tmp_path), "f", {"only": (sign_model(), 0.8)})
    away: list[bool] = []
    footprint = OwnFootprint(failing_while(away, NotNowError("there is no process that opens models")))
    family = PiecewiseFamily(
        Repository(tmp_path), "f", SessionOptions(), None, stages="off", cascades=False, footprint=footprint
    )

    async def run() -> None:
        residency = Residency({"f": family}, 8 << 30, (), 1, footprint)
        scheduler = Scheduler([family.family()], [Slot(0)], policy_named("casc"))
        residency.moves.begin(scheduler, lambda change: change(0.0))
        try:
            away.append(True)
            assert not await residency.load_first("f")
            assert ({}, [0], 1) == (family.refused, list(family.loadable()), residency.moves.failures)
            away.append(True)
            residency.begin(scheduler, lambda change: change(0.0))
            async with asyncio.timeout(30.0):
                while not family.paths:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.001)
            assert (2, [], {}) == (residency.moves.failures, away, family.refused)
        finally:
            residency.stop()

    asyncio.run(run())
