"""torch on the CPU: exported programs (`.pt2`), operator by operator as torch has them.

Importing this file imports torch, some hundred megabytes; nobody does but who opens such a variant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from variants.runtimes.contract import Model, SessionOptions, Tensors
from variants.tables import HeldTable

NAMES_FILE = "names.json"
"""Within the program's file: `inputs` and `outputs`, lists of names in the order of arguments and results."""


class TorchModel:
    """An exported program as a module; torch runs it for several threads at a time."""

    __slots__ = ("_module", "input_names", "output_names")

    def __init__(self, module: torch.nn.Module, input_names: Sequence[str], output_names: Sequence[str]) -> None:
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


def open_model(path: Path, options: SessionOptions, _tables: Mapping[str, HeldTable]) -> Model:
    """See `variants.runtimes.contract.OpenModel`. The number of threads is the process's, for all such models."""
    torch.set_num_threads(options.threads)
    files: dict[str, Any] = {NAMES_FILE: ""}
    program = torch.export.load(str(path), extra_files=files)
    names = json.loads(files[NAMES_FILE])
    return TorchModel(program.module(), names["inputs"], names["outputs"])
