"""The one way a model file is opened, for profiling and for serving alike; profiles are taken with one slot."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import psutil
from numpy.typing import NDArray

from variants.manifest import ModelFile
from variants.pieces import InPieces
from variants.resident import give_back
from variants.revision import RevisionFolder
from variants.runtimes.contract import Model, OpenModel, SessionOptions, Tensors
from variants.runtimes.table import ONNXRUNTIME, RUNTIMES, lack_of, shares_tables
from variants.shared_parts import TableFile
from variants.tables import hold_tables

__all__ = ["ModelLoadError", "Session", "SessionClosedError", "SessionOptions", "Tensors", "open_file", "open_session"]


class ModelLoadError(Exception):
    """A model file cannot be opened. The message is one line and names the file."""


class SessionClosedError(Exception):
    """A session was run after it was closed."""


class Session:
    """An opened model.

    `load_s` is how long opening took, `memory_bytes` how much resident memory the process gained by it (0 where the
    model fitted into memory that the process had already), and what its `tables` take, whoever else uses them; 0 where
    it was not weighed.
    """

    __slots__ = ("_model", "_run", "input_names", "load_s", "memory_bytes", "output_names", "path")

    def __init__(self, path: Path, model: Model, load_s: float = 0.0, memory_bytes: int = 0) -> None:
        self.path = path
        self.input_names = model.input_names
        self.output_names = model.output_names
        self.load_s = load_s
        self.memory_bytes = memory_bytes
        self._model: Model | None = model
        self._run: Callable[[Tensors], dict[str, NDArray[Any]]] = model.run

    def run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Return every output by name for inputs by name. Releases the interpreter lock while the model runs.

        Raises the runtime's own exceptions where an input is missing or does not fit, and `SessionClosedError`.
        """
        return self._run(feeds)

    def close(self) -> None:
        """Give back what the model takes, now and not when the last reference is gone; nobody may be running it.

        Closing twice is closing once.
        """
        model, self._model = self._model, None
        if model is not None:
            self._run = partial(_refuse, self.path)
            model.close()


def open_session(
    path: Path,
    options: SessionOptions | None = None,
    tables: Sequence[TableFile] = (),
    runtime: str = ONNXRUNTIME,
) -> Session:
    """Open a model file for inference by a runtime of `variants.runtimes.table`.

    Its `tables` are held once for all sessions of the process, where the runtime can share them; where it has tables
    that are not given, it gets copies of its own. Raises `ModelLoadError` naming the file where opening fails, or where
    the runtime is not to be had here.
    """
    options = options or SessionOptions()
    if lack := lack_of(runtime):
        raise ModelLoadError(f"{path}: {lack}")
    tables = tables if shares_tables(runtime) else ()
    process = psutil.Process()
    try:
        module = RUNTIMES[runtime].load()
        open_model: OpenModel = module.open_model
        # What a runtime takes that is here for the first time belongs to no model.
        getattr(module, "prepare", _nothing)()
        started_s = time.perf_counter()
        held = hold_tables(tables)
        if options.weighed:
            # What earlier work has left free would be used, and the model seem to take nothing.
            give_back()
        before_bytes = process.memory_info().rss
        model = open_model(path, options, held)
        if options.cells is not None:
            model = InPieces(model, options.cells)
    except Exception as error:  # runtimes raise a dozen unrelated types for a bad file
        raise ModelLoadError(f"{path}: cannot be opened as a model: {_one_line(error)}") from error
    load_s = time.perf_counter() - started_s
    if not options.weighed:
        return Session(path, model, load_s)
    # Reading a graph leaves up to twice its bytes free behind, which the process would keep.
    give_back()
    memory_bytes = max(0, process.memory_info().rss - before_bytes)
    memory_bytes += sum({file.table.sha256: file.table.size_bytes for file in tables}.values())
    return Session(path, model, load_s, memory_bytes)


def open_file(folder: RevisionFolder, file: ModelFile, options: SessionOptions | None = None) -> Session:
    """Open a model file of a revision. Raises `ModelLoadError`, and `RepositoryError` as `folder.file` does."""
    options = replace(options or SessionOptions(), longest=folder.manifest.sizes[-1])
    return open_session(folder.file(file.path), options, folder.tables(file.path), file.runtime)


def _nothing() -> None:
    return


def _refuse(path: Path, _feeds: Tensors) -> NoReturn:
    raise SessionClosedError(f"{path}: is closed")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
