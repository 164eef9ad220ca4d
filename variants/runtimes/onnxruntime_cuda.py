"""onnxruntime on a GPU of NVIDIA's: the files that the CPU runs, by another provider.

Needs the package `onnxruntime-gpu` in place of `onnxruntime`; they share a name, so it is no extra. Arrays come from
the host's memory and go back to it with every batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from variants.runtimes import onnxruntime_cpu
from variants.runtimes.contract import Model, RuntimeUnavailableError, SessionOptions
from variants.tables import HeldTable

_PROVIDER = "CUDAExecutionProvider"


def check() -> None:
    """Raise `RuntimeUnavailableError` where this onnxruntime has no CUDA."""
    if _PROVIDER not in onnxruntime.get_available_providers():
        raise RuntimeUnavailableError("this onnxruntime has no CUDA: install `onnxruntime-gpu` in its place")


def open_model(path: Path, options: SessionOptions, _tables: Mapping[str, HeldTable]) -> Model:
    """See `variants.runtimes.contract.OpenModel`. What CUDA cannot run runs on the CPU, as onnxruntime has it."""
    check()
    return onnxruntime_cpu.open_model(path, options, {}, (_PROVIDER, *onnxruntime_cpu.PROVIDERS))
