"""Models that are open in other processes, for who opens, tries and closes models in this one."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from router.words import Reason
from service.paths import KilledError, NotNowError
from service.processes.conversation import NO_TEMPLATE, End
from service.processes.deaths import reason_of, work_begins
from service.processes.host import BEGINS_WITHIN_S, Host
from service.processes.links import Link
from service.processes.messages import MOST_BYTES, READY
from service.processes.tensors import TensorError
from service.runner import ModelFaultError
from variants.manifest import ModelFile
from variants.repository import RevisionFolder
from variants.runtimes.contract import Tensors
from variants.runtimes.table import lack_of, shares_tables
from variants.session import ModelLoadError, Session, SessionOptions

TRIED_WITHIN_S = 10.0
"""A model that is tried, away from all requests, hangs after so long."""


class NobodyRanError(ModelFaultError, NotNowError):
    """There was no process to run a model, or the one that they are made of ended meanwhile."""


class KilledRunError(ModelFaultError, KilledError):
    """The process that ran a model was killed by somebody."""


_FAULTS: Mapping[Reason, type[ModelFaultError]] = {
    Reason.EXECUTOR_LOST: NobodyRanError,
    Reason.OUT_OF_MEMORY: KilledRunError,
    Reason.KILLED: KilledRunError,
}


class HostedModel:
    """See `variants.runtimes.contract.Model`. Each run is one in a new process, which may end by it."""

    def __init__(self, host: Host, number: int, said: dict[str, Any], generation: int) -> None:
        self.input_names: tuple[str, ...] = tuple(said["input_names"])
        self.output_names: tuple[str, ...] = tuple(said["output_names"])
        self.number = number
        self.generation = generation
        self._host = host
        # A family that is replaced is forgotten, not closed.
        self._forgotten = weakref.finalize(self, host.let_go_soon, number)

    def run(self, feeds: Tensors, /) -> dict[str, NDArray[Any]]:
        """Run it once, and wait.

        Raises `ModelFaultError` where that ends the process, hangs or fails; `NobodyRanError` where it is not to blame,
        `KilledRunError` where it may not be.
        """
        if not self._host.wait_until_up():
            raise NobodyRanError(Reason.EXECUTOR_LOST, f"its process {NO_TEMPLATE}")
        ended: Future[End] = Future()
        work_begins()
        link = self._host.fork(ended.set_result, only=self.number, name="pareto-probe")
        try:
            return self._run(link, ended, feeds)
        finally:
            self._host.kill(link.executor)
            link.close()

    def close(self) -> None:
        """See `Model`."""
        self._forgotten.detach()
        self._host.close_model(self.number)

    def _run(self, link: Link, ended: Future[End], feeds: Tensors) -> dict[str, NDArray[Any]]:
        link.connection.settimeout(BEGINS_WITHIN_S)
        told = link.areas[0].write({name: np.asarray(array) for name, array in feeds.items()})
        try:
            if (said := link.connection.recv(MOST_BYTES)) == READY:
                link.connection.settimeout(TRIED_WITHIN_S)
                link.connection.send(orjson.dumps([0, 0, [self.number], told]))
                said = link.connection.recv(MOST_BYTES)
        except TimeoutError:
            raise ModelFaultError(Reason.HUNG, f"no answer within {link.connection.gettimeout():g} s") from None
        except OSError:
            said = b""
        if not said:
            try:
                end = ended.result(TRIED_WITHIN_S)
            except TimeoutError:
                raise ModelFaultError(Reason.HUNG, "its process answers no more, and does not end") from None
            reason = reason_of(end)
            raise _FAULTS.get(reason, ModelFaultError)(reason, f"its process {end.said}")
        try:
            *_, answer = orjson.loads(said)
            if isinstance(answer, dict):
                reason, why = Reason(answer["fault"]), str(answer["said"])
            else:
                names = dict(zip(("logits", "state"), self._named(), strict=False))
                return {names[name]: array.copy() for name, array in link.areas[0].read(answer).items()}
        except (ValueError, TypeError, KeyError, TensorError) as error:
            # It may have written anywhere in its memory.
            raise ModelFaultError(Reason.CRASHED, f"its process says what makes no sense: {error}") from error
        raise ModelFaultError(reason, why)

    def _named(self) -> Sequence[str]:
        """Its outputs: the logits, and the state where it leaves one."""
        return ("logits", *(name for name in self.output_names if name != "logits"))


class HostedSession(Session):
    """A session in other processes, which know it by its `number` if they are of its `generation` or a later one."""

    __slots__ = ("generation", "number")

    def __init__(self, path: Path, model: HostedModel, load_s: float, memory_bytes: int) -> None:
        super().__init__(path, model, load_s, memory_bytes)
        self.number = model.number
        self.generation = model.generation


class HostedOpener:
    """Opens models in other processes, as `variants.session.open_file` does in this one.

    `gained_bytes` is what all that were opened so far have added to the process that they were opened in, lookup tables
    not counted.
    """

    def __init__(self, host: Host) -> None:
        self.gained_bytes = 0
        self._host = host

    def __call__(self, folder: RevisionFolder, file: ModelFile, options: SessionOptions) -> Session:
        """Raises `ModelLoadError`, and `RepositoryError` as `folder.file` does."""
        path = folder.file(file.path)
        if lack := lack_of(file.runtime):
            raise ModelLoadError(f"{path}: {lack}")
        tables = folder.tables(file.path) if shares_tables(file.runtime) else ()
        # It is opened where nobody is served, and what it takes there is all that is known of it.
        number, said, generation = self._host.open(path, replace(options, weighed=True), tables, file.runtime)
        shared = {one.table.sha256: one.table.size_bytes for one in tables}
        self.gained_bytes += max(0, int(said["memory_bytes"]) - sum(shared.values()))
        model = HostedModel(self._host, number, said, generation)
        return HostedSession(path, model, float(said["load_s"]), int(said["memory_bytes"]))
