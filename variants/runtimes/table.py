"""The runtimes by name: what each needs, and whether it is here. None is imported before it is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from variants.runtimes.contract import RuntimeUnavailableError

ONNXRUNTIME = "onnxruntime"
"""What every revision is built for first; manifests that say nothing mean it."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """One runtime. `module` is its file here, `needs` the import whose presence means that it is installed.

    `package` is what brings it, `install` says what to do where it is not there. `suffix` is the kind of file that it
    reads; one that `shares_tables` uses lookup tables as they lie in memory for others. One that is `picky` about the
    machine has a function `check` in its file, which raises `RuntimeUnavailableError`.
    """

    name: str
    module: str
    needs: str
    package: str
    install: str
    suffix: str = ".onnx"
    shares_tables: bool = False
    picky: bool = False

    @property
    def rewrites(self) -> bool:
        """Whether it reads other files than onnxruntime."""
        return self.suffix != ".onnx"

    @property
    def installed(self) -> bool:
        """Whether its package is there; it is not imported."""
        return find_spec(self.needs) is not None

    def lack(self) -> str:
        """Say in one line why it cannot be used here and what to do; empty where it can. Imports it if it is picky."""
        if not self.installed:
            return f"the runtime {self.name} is not installed: {self.install}"
        if self.picky:
            try:
                self.load().check()
            except RuntimeUnavailableError as error:
                return f"the runtime {self.name} cannot be used here: {error}"
            except ImportError as error:
                return f"the runtime {self.name} cannot be imported: {' '.join(str(error).split())[:200]}"
        return ""

    def load(self) -> ModuleType:
        """Import it. Raises `ImportError`."""
        return import_module(f"variants.runtimes.{self.module}")


def _extra(name: str) -> str:
    return f'pip install "pareto-gateway[{name}]" installs it'


RUNTIMES: Mapping[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            ONNXRUNTIME,
            "onnxruntime_cpu",
            "onnxruntime",
            "onnxruntime",
            "pip install onnxruntime installs it",
            shares_tables=True,
        ),
        Runtime(
            "onnxruntime-cuda",
            "onnxruntime_cuda",
            "onnxruntime",
            "onnxruntime-gpu",
            "pip install onnxruntime-gpu, in place of onnxruntime, installs it",
            picky=True,
        ),
        Runtime("openvino", "openvino_cpu", "openvino", "openvino", _extra("openvino")),
        Runtime("openvino-bf16", "openvino_bf16", "openvino", "openvino", _extra("openvino"), picky=True),
        Runtime("litert", "litert", "ai_edge_litert", "ai-edge-litert", _extra("litert"), ".tflite"),
        Runtime("torch", "torch_cpu", "torch", "torch", _extra("torch"), ".pt2"),
    )
}


def shares_tables(runtime: str) -> bool:
    """Say whether models on a runtime use lookup tables as they lie in memory for others."""
    return runtime in RUNTIMES and RUNTIMES[runtime].shares_tables


def lack_of(runtime: str) -> str:
    """Say in one line why models on a runtime, however it is called, cannot be opened here; empty where they can."""
    known = RUNTIMES.get(runtime)
    return known.lack() if known is not None else f"the runtime {runtime!r} is not known to this version"
