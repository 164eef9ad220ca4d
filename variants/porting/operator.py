"""What a translation of an ONNX operator is: a function of values and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Value = Any
"""A tensor, a number, a list of numbers, or None for an input that is left out."""
Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Value], Attributes], Value]


class UnsupportedError(Exception):
    """A graph has something that is not translated. The message is one line that names the operator."""
