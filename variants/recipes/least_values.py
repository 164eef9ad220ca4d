"""What a graph's activations are never below, as far as that is seen from the operators which make them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

LEAST_OF_GELU = -0.17
"""x Phi(x) is -0.16997 at its least, where x is -0.7518."""

_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "Softmax", "Exp", "Abs"})
_GELUS = frozenset({"Gelu", "BiasGelu", "FastGelu"})


class LeastValues:
    """Bounds of the tensors of one graph; `constants` has its initializers by name."""

    def __init__(self, graph: onnx.GraphProto, constants: Mapping[str, NDArray[np.generic]]) -> None:
        self._made_by = {output: node for node in graph.node for output in node.output}
        self._constants = constants

    def of(self, name: str) -> float | None:
        """Return what no element of a tensor is below; none where nothing is known."""
        node = self._made_by.get(name)
        if node is None:
            return None
        if node.op_type in _NEVER_NEGATIVE:
            return 0.0
        if node.op_type in _GELUS or (node.op_type == "Mul" and self._is_gelu(node)):
            return LEAST_OF_GELU
        return None

    def _is_gelu(self, product: onnx.NodeProto) -> bool:
        """Whether it is x (1 + erf(x / sqrt(2))) / 2, in any order: GELU where the opset has no operator for it."""
        factors, number = self._factors(product)
        if len(factors) != 2 or not math.isclose(number, 0.5, rel_tol=1e-3):
            return False
        return any(self._is_one_and_erf(one, of=other) for one, other in (factors, factors[::-1]))

    def _is_one_and_erf(self, name: str, *, of: str) -> bool:
        total = self._made_by.get(name)
        if total is None or total.op_type != "Add":
            return False
        numbers = [value for part in total.input if (value := self._number(part)) is not None]
        made_by = [self._made_by.get(part) for part in total.input]
        errors = [node for node in made_by if node is not None and node.op_type == "Erf"]
        if len(errors) != 1 or numbers != [1.0]:
            return False
        factors, number = self._factors(self._made_by.get(errors[0].input[0]))
        return factors == [of] and math.isclose(number, math.sqrt(0.5), rel_tol=1e-3)

    def _factors(self, node: onnx.NodeProto | None) -> tuple[list[str], float]:
        """Return the tensors that are multiplied, and the numbers among the factors as one."""
        if node is None or node.op_type not in ("Mul", "Div"):
            return [], 1.0
        factors, product = [], 1.0
        for place, name in enumerate(node.input):
            number = self._number(name)
            if number is not None:
                product *= 1.0 / number if node.op_type == "Div" and place == 1 and number else number
            elif node.op_type == "Div" and place == 1:
                return [], 1.0
            elif (inner := self._made_by.get(name)) is not None and inner.op_type in ("Mul", "Div"):
                more, number = self._factors(inner)
                # A product of what is no number, x * y, is a factor itself where nothing is known of it.
                factors += more if more else [name]
                product *= number
            else:
                factors.append(name)
        return factors, product

    def _number(self, name: str) -> float | None:
        value = self._constants.get(name)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None
