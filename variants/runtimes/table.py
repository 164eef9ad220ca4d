"""The runtimes by name: what each needs, and whether it is here. None is imported before it is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
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
    machine has a function `check` in its file, which raises `RuntimeUnavailableError`. One that `grows` takes memory,
    and time, for every new shape of a batch; of one that `copies`, each slot has a model of its own.
    """

    name: str
    module: str
    needs: str
    package: str
    install: str
    suffix: str = ".onnx"
    shares_tables: bool = False
    picky: bool = False
    grows: bool = False
    copies: bool = False

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
            except Exception as error:  # noqa: BLE001 - of a broken package anything may come: OSError, RuntimeError
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                return f"the runtime {self.name} is broken here: {reason}"
        return ""

    def load(self) -> ModuleType:
        """Import it. Raises `ImportError`, and of a broken package anything."""
        return import_module(f"variants.runtimes.{self.module}")

    @property
    def version(self) -> str:
        """The version of its package; empty where the package that it was imported from has another name."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""


def _extra(name: str) -> str:
    return f'pip install -e ".[{name}]" in a checkout installs it'


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
        Runtime("openvino", "openvino_cpu", "openvino", "openvino", _extra("openvino"), grows=True),
        Runtime("openvino-bf16", "openvino_bf16", "openvino", "openvino", _extra("openvino"), picky=True, grows=True),
        Runtime("litert", "litert", "ai_edge_litert", "ai-edge-litert", _extra("litert"), ".tflite", copies=True),
        Runtime("torch", "torch_cpu", "torch", "torch", _extra("torch"), ".pt2"),
    )
}


def copies_of(runtime: str, slots: int) -> int:
    """Return how many times the memory of a model with one slot is taken where there are so many."""
    return slots if runtime in RUNTIMES and RUNTIMES[runtime].copies else 1


def shares_tables(runtime: str) -> bool:
    """Say whether models on a runtime use lookup tables as they lie in memory for others."""
    return runtime in RUNTIMES and RUNTIMES[runtime].shares_tables


def lack_of(runtime: str) -> str:
    """Say in one line why models on a runtime, however it is called, cannot be opened here; empty where they can."""
    known = RUNTIMES.get(runtime)
    return known.lack() if known is not None else f"the runtime {runtime!r} is not known to this version"
