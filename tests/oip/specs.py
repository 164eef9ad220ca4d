"""Signatures for the tests of the protocol."""

from __future__ import annotations

from typing import NamedTuple

from service.oip.signature import Signature


class Spec(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]


OUTPUTS = (Spec("label", "BYTES", (-1,)), Spec("scores", "FP32", (-1, 2)))


def taking(*inputs: Spec) -> Signature:
    """A model with these inputs, and `label` and `scores` out."""
    return Signature.of(inputs, OUTPUTS)


def one_input(datatype: str = "FP32", *row: int) -> Signature:
    """A model with one input `x`, rows of that shape."""
    return taking(Spec("x", datatype, (-1, *row)))


TWO_INPUTS = taking(Spec("x", "FP32", (-1, 2)), Spec("n", "INT32", (-1,)))
