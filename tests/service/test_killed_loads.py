"""A variant of which a load is killed from outside may be sound: it is loaded again, but not for ever."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pytest

from service.footprint import OwnFootprint
from service.paths import KilledError, OpenFile
from service.piecewise import KILLED_TIMES, PiecewiseFamily
from service.processes.copies import HANGS
from service.processes.host import Host
from service.processes.links import Link
from service.processes.messages import KILLED, Open, ToTemplate, pair
from service.processes.models import HostedModel
from service.processes.template import Template
from tests.service.families import sign_model, write_family
from tests.service.test_template import hosted
from variants.manifest import ModelFile
from variants.repository import Repository, RevisionFolder
from variants.runtimes.table import ONNXRUNTIME
from variants.session import ModelLoadError, Session, SessionOptions, open_file


def failing_while(fails: list[bool], error: ModelLoadError) -> OpenFile:
    """Opens models, but raises the error for each true value that it takes from the list."""

    def open_one(folder: RevisionFolder, file: ModelFile, options: SessionOptions) -> Session:
        if fails and fails.pop():
            raise error
        return open_file(folder, file, options)

    return open_one


def test_it_is_refused_by_name_after_the_third_time_in_a_row(tmp_path: Path) -> None:
    """A load in between that succeeds forgives those before."""
    write_family(Repository(tmp_path), "f", {"only": (sign_model(), 0.8)})
    kills: list[bool] = []
    open_one = failing_while(kills, KilledError("only: the process that opened it was killed by SIGKILL"))
    family = PiecewiseFamily(
        Repository(tmp_path),
        "f",
        SessionOptions(),
        None,
        stages="off",
        cascades=False,
        footprint=OwnFootprint(open_one),
    )
    for times in (KILLED_TIMES - 1, KILLED_TIMES - 1):
        kills += times * [True]
        for _ in range(times):
            with pytest.raises(KilledError):
                family.open("only")
        family.open("only")
        assert {} == family.refused
    kills += KILLED_TIMES * [True]
    raised = []
    while kills:
        with pytest.raises(ModelLoadError) as error:
            family.open("only")
        raised.append(type(error.value))
    assert [KilledError, KilledError, ModelLoadError] == raised
    assert {"only": "only: the process that opened it was killed by SIGKILL"} == family.refused


@pytest.mark.parametrize(
    ("how", "by", "raised"),
    [
        ("was killed by SIGKILL", signal.SIGKILL, KilledError),
        ("was killed by SIGFPE", signal.SIGFPE, ModelLoadError),
        (HANGS, signal.SIGKILL, ModelLoadError),
    ],
)
def test_who_kills_what_opens_a_model_says_nothing_of_it(
    tmp_path: Path, how: str, by: int, raised: type[Exception]
) -> None:
    """What it ends by itself, or is ended for because it hangs, does."""
    ours, its = pair()
    wanted = Open(1, tmp_path / "model.onnx", SessionOptions(), (), ONNXRUNTIME, careful=True)
    Template(its)._opened_apart(wanted, os.memfd_create("nothing"), how, by)
    _, _, said = orjson.loads(ours.recv(1000))
    assert (raised is KilledError) == (KILLED in said)

    class Told(Host):
        def _ask(self, number: int, told: ToTemplate, wait_s: float = 0.0) -> dict[str, Any]:
            return dict(said)

    async def run() -> type[Exception]:
        with pytest.raises(ModelLoadError, match=how) as error:
            await asyncio.to_thread(Told().open, wanted.path, wanted.options, (), ONNXRUNTIME)
        return type(error.value)

    assert raised is asyncio.run(run())


def test_who_kills_what_tries_a_model_says_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first run is one in a process of its own, as batches are not."""
    path = tmp_path / "sound.onnx"
    onnx.save(sign_model(), path)
    fork = Host.fork

    def killed(host: Host, *arguments: Any, **others: Any) -> Link:
        link = fork(host, *arguments, **others)
        host.kill(link.executor)
        return link

    async def does(host: Host) -> None:
        number, said, generation = await asyncio.to_thread(host.open, path, SessionOptions(), (), ONNXRUNTIME)
        model = HostedModel(host, number, said, generation)
        monkeypatch.setattr(Host, "fork", killed)
        with pytest.raises(KilledError, match="killed by SIGKILL"):
            await asyncio.to_thread(model.run, {"x": np.zeros((1, 4), np.float32)})

    hosted(does)
