"""What a foreign model's output is, logits or probabilities, and how logits come of it.

The gateway calibrates confidence on logits and makes the probabilities itself. A softmax at the end is therefore left
out; where probabilities come out in another way (a forest, say), their logarithm is taken, whose softmax gives them
back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from variants.importing.model import ForeignModel
from variants.importing.surgery import producer, served_form
from variants.preparation import Feeds
from variants.recipes.matrices import attribute
from variants.spec import BuildError

PROBED_ROWS = 16
SUM_TOLERANCE = 5e-3
"""Farthest from 1 that the probabilities of a row add up to, where they were computed in 16 bits."""
SMALLEST = 1e-12
"""The logarithm is taken of at least that much."""
_FLOOR = "foreign_smallest"


class Kind(StrEnum):
    """What the output is."""

    LOGITS = "logits"
    SOFTMAX = "a softmax of logits"
    PROBABILITIES = "probabilities"


@dataclass(frozen=True, slots=True)
class Answer:
    """How many classes there are, what the output is, and the tensor from which the logits are made."""

    model: ForeignModel
    kind: Kind
    tensor: str
    classes: int

    def served(self, row_shape: tuple[int, ...]) -> onnx.ModelProto:
        """Return the model in the form that is served: float32 [n, *row_shape] to `logits` float32 [n, classes]."""
        added: list[onnx.NodeProto] = []
        if self.kind is Kind.PROBABILITIES:
            floor = helper.make_node("Clip", ["", _FLOOR], [""])
            added = [helper.make_node("Cast", [""], [""], to=onnx.TensorProto.FLOAT), floor]
            added.append(helper.make_node("Log", [""], [""]))
        model = served_form(self.model.graph, self.tensor, self.classes, row_shape, added)
        if self.kind is Kind.PROBABILITIES:
            model.graph.initializer.append(helper.make_tensor(_FLOOR, onnx.TensorProto.FLOAT, [], [SMALLEST]))
        return model

    def reference(self) -> Callable[[Feeds], NDArray[np.float32]]:
        """Return the logits float32 [n, classes] of the file as it came, for rows that were prepared."""
        reader = self.model.reader(self.tensor)

        def logits(feeds: Feeds) -> NDArray[np.float32]:
            given = reader.read(feeds[self.model.input_name]).astype(np.float32)
            return np.log(np.maximum(given, np.float32(SMALLEST))) if self.kind is Kind.PROBABILITIES else given

        return logits


def answer_of(model: ForeignModel, rows: NDArray[np.float32]) -> Answer:
    """Find out what a model gives for prepared rows float32 [n, ...], of which the first few are tried.

    Raises `BuildError` where it fails on them, gives anything but [n, k] finite numbers with k of at least 2, or an
    answer whose columns are not exclusive.
    """
    reader, rows = model.reader(), rows[:PROBED_ROWS]
    given = reader.read(rows)
    classes = _classes(model, given, len(rows))
    _classes(model, reader.read(rows[:1]), 1)
    if not np.isfinite(given).all():
        raise BuildError(f"{model.path}: output {model.output_name!r} holds values that are not finite")
    node = producer(model.graph.graph, model.output_name)
    if node is not None and node.op_type == "Sigmoid":
        raise BuildError(
            f"{model.path}: output {model.output_name!r} is a sigmoid: labels that exclude each other are served only"
        )
    if node is not None and node.op_type == "Softmax" and attribute(node, "axis", -1) in (-1, 1):
        return Answer(model, Kind.SOFTMAX, node.input[0], classes)
    kind = Kind.PROBABILITIES if _are_probabilities(given) else Kind.LOGITS
    return Answer(model, kind, model.output_name, classes)


def _classes(model: ForeignModel, given: NDArray[Any], rows: int) -> int:
    where = f"{model.path}: output {model.output_name!r}"
    if given.ndim != 2:
        raise BuildError(f"{where} has rank {given.ndim}, {list(given.shape)} for {rows} rows: expected [n, k] logits")
    if given.shape[0] != rows:
        raise BuildError(f"{where} is {list(given.shape)} for a batch of {rows} rows: expected one answer for each")
    if given.shape[1] < 2:
        raise BuildError(f"{where} has {given.shape[1]} column, a classifier needs one for each of at least 2 labels")
    return int(given.shape[1])


def _are_probabilities(given: NDArray[Any]) -> bool:
    return bool((given >= 0).all() and (np.abs(given.sum(axis=1, dtype=np.float64) - 1) <= SUM_TOLERANCE).all())
