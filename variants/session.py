"""The one way a model file is opened, for profiling and for serving alike: what is measured is what is served."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import psutil
from numpy.typing import NDArray

from variants.shared_parts import TableFile
from variants.tables import HeldTable, hold_tables

Tensors = Mapping[str, NDArray[Any]]

_LOG_ERRORS_ONLY = 3


class ModelLoadError(Exception):
    """A model file cannot be opened. The message is one line and names the file."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How sessions run. `threads` is the number of threads that work on one batch (at least 1).

    `arena` keeps the memory of the largest batch ever run for the next one. Measured on a 4-layer text encoder, one
    thread, batch x tokens, arena off against on: fp32 1x32 +2 %, 8x32 +4 %, 32x32 +13 %; int8 0, 0 and +1 %. After one
    batch of 64x128 a session kept 33 MB (fp32) and 48 MB (int8) without the arena, 226 and 170 MB with it. A process
    with many variants would pay that for each of them, so it is off.
    """

    threads: int = 1
    arena: bool = False


class Session:
    """An opened model.

    `load_s` is how long opening took, `memory_bytes` how much resident memory the process gained by it (0 where the
    model fitted into memory that the process had already), and what its `tables` take, whoever else uses them.
    """

    __slots__ = ("_output_list", "_run", "_tables", "input_names", "load_s", "memory_bytes", "output_names", "path")

    def __init__(
        self,
        path: Path,
        inference: onnxruntime.InferenceSession,
        load_s: float = 0.0,
        memory_bytes: int = 0,
        tables: Sequence[HeldTable] = (),
    ) -> None:
        self.path = path
        self.input_names: tuple[str, ...] = tuple(node.name for node in inference.get_inputs())
        self.output_names: tuple[str, ...] = tuple(node.name for node in inference.get_outputs())
        self.load_s = load_s
        self.memory_bytes = memory_bytes
        self._run = inference.run
        self._output_list = list(self.output_names)
        # onnxruntime looks up in them and does not own them.
        self._tables = tuple(tables)

    def run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Return every output by name for inputs by name. Releases the interpreter lock while the model runs.

        Raises `ValueError` where an input is missing and onnxruntime's own exceptions where one does not fit.
        """
        return dict(zip(self.output_names, self._run(self._output_list, feeds), strict=True))


def open_session(path: Path, options: SessionOptions | None = None, tables: Sequence[TableFile] = ()) -> Session:
    """Open a model file for inference on the CPU; its `tables` are held once for all sessions of the process.

    Where it has tables that are not given, it gets copies of its own. Raises `ModelLoadError` naming the file where
    opening fails.
    """
    options = options or SessionOptions()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = options.arena
    settings.log_severity_level = _LOG_ERRORS_ONLY
    # Threads that spin while they wait would take the cores from the sessions beside this one.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    process = psutil.Process()
    started_s = time.perf_counter()
    try:
        held = hold_tables(tables)
        for name, table in held.items():
            settings.add_initializer(name, table.value)
        resident_bytes = process.memory_info().rss
        inference = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen unrelated types for a bad file
        raise ModelLoadError(f"{path}: cannot be opened as a model: {_one_line(error)}") from error
    load_s = time.perf_counter() - started_s
    memory_bytes = max(0, process.memory_info().rss - resident_bytes)
    memory_bytes += sum({file.table.sha256: file.table.size_bytes for file in tables}.values())
    return Session(path, inference, load_s, memory_bytes, tuple(held.values()))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
