"""onnxruntime on the CPU: what every family is built for, and what everything else is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from variants.runtimes.contract import Model, SessionOptions, Tensors
from variants.tables import HeldTable

PROVIDERS = ("CPUExecutionProvider",)
_LOG_ERRORS_ONLY = 3
_SLOWER_FUSED = ("SkipLayerNormFusion", "BiasGeluFusion")
"""Fusions whose CPU kernels take longer than what they replace: a sum and a normalization of 32 x 384 numbers take 23
us, `SkipLayerNormalization` 65 (onnxruntime 1.31, AVX-512). `docs/import.md` has what a text encoder gains without."""

_ECHO = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x02\x10\r"
)
"""The smallest model in ONNX's format (IR 8, operators 13): `y = Identity(x)`, one float32."""


class OnnxruntimeModel:
    """An inference session, and the lookup tables that it uses as they lie in memory."""

    __slots__ = ("_output_list", "_run", "_tables", "input_names", "output_names")

    def __init__(self, inference: onnxruntime.InferenceSession, tables: Sequence[HeldTable] = ()) -> None:
        self.input_names: tuple[str, ...] = tuple(node.name for node in inference.get_inputs())
        self.output_names: tuple[str, ...] = tuple(node.name for node in inference.get_outputs())
        self._output_list = list(self.output_names)
        self._run = inference.run
        # onnxruntime looks up in them and does not own them.
        self._tables = tuple(tables)

    def run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """See `variants.runtimes.contract.Model`. `ValueError` where an input is missing."""
        # Whoever closes this meanwhile leaves the tables to the run: onnxruntime reads them where they lie.
        tables = self._tables
        answers = dict(zip(self.output_names, self._run(self._output_list, feeds), strict=True))
        del tables
        return answers

    def close(self) -> None:
        """Forget the inference session, and after it the tables."""
        del self._run
        self._tables = ()


def open_model(
    path: Path, options: SessionOptions, tables: Mapping[str, HeldTable], providers: Sequence[str] = PROVIDERS
) -> Model:
    """See `variants.runtimes.contract.OpenModel`; where the model has tables that are not given, it gets its own."""
    settings = _settings(options)
    if tuple(providers) == PROVIDERS:
        # Other devices have kernels of their own, which gain by them.
        settings.add_session_config_entry("optimization.disable_specified_optimizers", ";".join(_SLOWER_FUSED))
    for name, table in tables.items():
        settings.add_initializer(name, table.value)
    inference = onnxruntime.InferenceSession(str(path), settings, providers=list(providers))
    return OnnxruntimeModel(inference, tuple(tables.values()))


def warm() -> None:
    """Have onnxruntime take now what it takes with the first model of a process, whichever that is: some 9 MB, in 8 ms.

    Else a budget would think it free, and the first model to have taken it.
    """
    onnxruntime.InferenceSession(_ECHO, _settings(SessionOptions(threads=1)), providers=list(PROVIDERS))


def _settings(options: SessionOptions) -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = options.arena
    settings.log_severity_level = _LOG_ERRORS_ONLY
    # Threads that spin while they wait would take the cores from the sessions beside this one.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return settings
