"""LiteRT with XNNPACK: the runtime of phones, on a server's processor.

A `.tflite` file has fixed shapes. Ours have one signature for each of a few numbers of rows and tokens, which share the
weights in the file: a batch is padded to the next number of tokens and answered in pieces of as many rows as there are
signatures for. XNNPACK packs the weights when a signature first runs, in every interpreter: so all run once while the
model is opened, and what they take is known (docs/runtimes.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert.interpreter import Interpreter, SignatureRunner
from numpy.typing import NDArray

from variants.runtimes.contract import Model, SessionOptions, Tensors
from variants.runtimes.padding import padded
from variants.tables import HeldTable

Shape = tuple[int, ...]


class _Signature(NamedTuple):
    """What one signature takes: shapes and element types by input."""

    name: str
    shapes: Mapping[str, Shape]
    types: Mapping[str, np.dtype[Any]]

    @property
    def rows(self) -> int:
        """The rows of a batch."""
        return next(iter(self.shapes.values()))[0]


def piece(rows: int, sizes: list[int]) -> int:
    """Return which of the ascending `sizes`, which begin with 1, is to be run next for so many rows.

    Padding is worth it where more than half of the rows are real.
    """
    holding = next((size for size in sizes if size >= rows), None)
    if holding is not None and 2 * rows > holding:
        return holding
    return max(size for size in sizes if size <= rows)


class LitertModel:
    """As many interpreters as batches may run at a time; an interpreter runs one."""

    __slots__ = ("_interpreters", "_signatures", "input_names", "output_names")

    def __init__(self, interpreters: list[Interpreter]) -> None:
        first = interpreters[0]
        listed = first.get_signature_list()
        if not listed:
            raise ValueError("it has no signature")
        self._signatures = [_signature(first.get_signature_runner(name), name) for name in listed]
        self._signatures.sort(key=lambda signature: (list(signature.shapes.values()), signature.name))
        names = next(iter(listed.values()))
        self.input_names: tuple[str, ...] = tuple(names["inputs"])
        self.output_names: tuple[str, ...] = tuple(names["outputs"])
        self._interpreters: SimpleQueue[dict[str, SignatureRunner]] = SimpleQueue()
        for interpreter in interpreters:
            runners = {name: interpreter.get_signature_runner(name) for name in listed}
            for signature in self._signatures:
                nothing = {name: np.zeros(shape, signature.types[name]) for name, shape in signature.shapes.items()}
                runners[signature.name](**nothing)
            self._interpreters.put(runners)

    def run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """See `variants.runtimes.contract.Model`. `ValueError` for rows that are longer than any signature takes."""
        arrays = {name: feeds[name] for name in self.input_names}
        rows = len(next(iter(arrays.values())))
        fitting = self._fitting(arrays)
        pieces: list[dict[str, NDArray[Any]]] = []
        runners = self._interpreters.get()
        try:
            done = 0
            while done < rows:
                signature = fitting[piece(rows - done, list(fitting))]
                given = runners[signature.name](
                    **{
                        name: padded(array[done : done + signature.rows], signature.shapes[name], signature.types[name])
                        for name, array in arrays.items()
                    }
                )
                real = min(signature.rows, rows - done)
                pieces.append({name: values[:real] for name, values in given.items()})
                done += real
        finally:
            self._interpreters.put(runners)
        return {name: np.concatenate([given[name] for given in pieces]) for name in self.output_names}

    def close(self) -> None:
        """Forget the interpreters."""
        self._interpreters = SimpleQueue()

    def _fitting(self, arrays: Tensors) -> dict[int, _Signature]:
        """The signatures of the least sizes that hold the arrays, by their rows, ascending."""
        fitting: dict[int, _Signature] = {}
        for signature in self._signatures:
            holds = all(
                len(shape) == arrays[name].ndim
                and all(size >= needed for size, needed in zip(shape[1:], arrays[name].shape[1:], strict=True))
                for name, shape in signature.shapes.items()
            )
            if holds:
                fitting.setdefault(signature.rows, signature)
        if not fitting:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise ValueError(f"no signature of the file holds {shapes}")
        return dict(sorted(fitting.items()))


def _signature(runner: SignatureRunner, name: str) -> _Signature:
    details = runner.get_input_details()
    return _Signature(
        name=name,
        shapes={given: tuple(map(int, detail["shape"])) for given, detail in details.items()},
        types={given: np.dtype(detail["dtype"]) for given, detail in details.items()},
    )


def open_model(path: Path, options: SessionOptions, _tables: Mapping[str, HeldTable]) -> Model:
    """See `variants.runtimes.contract.OpenModel`."""
    interpreters = [Interpreter(model_path=str(path), num_threads=options.threads) for _ in range(options.slots)]
    return LitertModel(interpreters)
