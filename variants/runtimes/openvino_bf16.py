"""OpenVINO on the CPU in bfloat16: the same file computed with 8 bits of fraction instead of 24.

Only where the processor has instructions for it (AMX, AVX-512 BF16). Answers differ a little from those of float32, so
that it is a variant of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from variants.runtimes import openvino_cpu
from variants.runtimes.contract import Model, RuntimeUnavailableError, SessionOptions
from variants.tables import HeldTable


def check() -> None:
    """Raise `RuntimeUnavailableError` where the processor has no bfloat16."""
    if not openvino_cpu.can_bfloat16():
        raise RuntimeUnavailableError("this processor has no instructions for bfloat16")


def prepare() -> None:
    """Load OpenVINO's own code for processors, which is done once in a process."""
    openvino_cpu.prepare()


def open_model(path: Path, options: SessionOptions, tables: Mapping[str, HeldTable]) -> Model:
    """See `variants.runtimes.contract.OpenModel`."""
    check()
    return openvino_cpu.open_model(path, options, tables, "bf16")
