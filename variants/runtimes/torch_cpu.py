"""torch on the CPU: exported programs (`.pt2`), operator by operator as torch has them.

Importing this file imports torch, some hundred megabytes; nobody does but who opens such a variant.
"""

from __future__ import annotations

import io
import json
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from variants.runtimes.contract import Model, SessionOptions, Tensors
from variants.tables import HeldTable

NAMES_FILE = "names.json"
"""Within the program's file: `inputs` and `outputs`, lists of names in the order of arguments and results."""


class _Threads:
    """torch's number of threads, which is the process's: what models want while some are open, and then as before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models = 0
        self._before = 0

    def take(self, threads: int) -> None:
        with self._lock:
            if not self._models:
                self._before = torch.get_num_threads()
            self._models += 1
            torch.set_num_threads(threads)

    def give_back(self) -> None:
        with self._lock:
            self._models -= 1
            if not self._models:
                torch.set_num_threads(self._before)


_threads = _Threads()


class TorchModel:
    """An exported program as a module; torch runs it for several threads at a time."""

    __slots__ = ("__weakref__", "_give_back", "_module", "input_names", "output_names")

    def __init__(
        self, module: torch.nn.Module, input_names: Sequence[str], output_names: Sequence[str], threads: int
    ) -> None:
        _threads.take(threads)
        # Not every caller closes what it opened.
        self._give_back = weakref.finalize(self, _threads.give_back)
        self.input_names = tuple(input_names)
        self.output_names = tuple(output_names)
        self._module = module

    def run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """See `variants.runtimes.contract.Model`. `KeyError` where an input is missing."""
        inputs = [torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in self.input_names]
        with torch.inference_mode():
            given = self._module(*inputs)
        return dict(zip(self.output_names, (tensor.numpy() for tensor in given), strict=True))

    def close(self) -> None:
        """Take the weights from the module, which refers to itself and so is only collected some time later."""
        for module in self._module.modules():
            for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                delattr(module, name)
        del self._module
        self._give_back()


@lru_cache(maxsize=1)
def prepare() -> None:
    """Load the parts of torch that read programs, by reading one: they take seconds and a hundred megabytes."""
    program, file = torch.export.export(torch.nn.Identity(), (torch.ones(1),)), io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    torch.export.load(file)


def open_model(path: Path, options: SessionOptions, _tables: Mapping[str, HeldTable]) -> Model:
    """See `variants.runtimes.contract.OpenModel`. The number of threads is the process's, for all such models."""
    files: dict[str, Any] = {NAMES_FILE: ""}
    program = torch.export.load(str(path), extra_files=files)
    names = json.loads(files[NAMES_FILE])
    return TorchModel(program.module(), names["inputs"], names["outputs"], options.threads)
