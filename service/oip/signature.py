"""What a model takes and gives, compiled once so that decoding a request only looks things up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from service.oip.datatypes import DATATYPES, Datatype

ANY_LENGTH = -1
"""In a shape: a dimension of any positive length."""


class TensorSpec(Protocol):
    """One tensor as the model's metadata names it."""

    @property
    def name(self) -> str:
        """Unique among the inputs, and among the outputs."""

    @property
    def datatype(self) -> str:
        """A key of `DATATYPES`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """-1 for a dimension of any length; the first one is rows and -1."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output. `shape` has -1 for a dimension of any positive length, the first one is rows."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model by name, in order."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    @staticmethod
    def of(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Signature:
        """Compile tensor specifications.

        Raises `ValueError` for an unknown datatype, for a first dimension that is not -1, for another one that is
        neither -1 nor positive, for two tensors of one name, and where there are no inputs or no outputs.
        """
        return Signature(_by_name("input", inputs), _by_name("output", outputs))


def _by_name(kind: str, specs: Iterable[TensorSpec]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for spec in specs:
        where = f"{kind} {spec.name!r}"
        if spec.name in tensors:
            raise ValueError(f"{where}: named twice")
        if spec.datatype not in DATATYPES:
            raise ValueError(f"{where}: datatype {spec.datatype!r}, expected one of {', '.join(DATATYPES)}")
        shape = tuple(spec.shape)
        if not shape or shape[0] != ANY_LENGTH:
            raise ValueError(f"{where}: shape {list(shape)}, expected -1 (rows) first")
        if any(length < 1 and length != ANY_LENGTH for length in shape):
            raise ValueError(f"{where}: shape {list(shape)}, expected positive dimensions or -1")
        tensors[spec.name] = Tensor(spec.name, DATATYPES[spec.datatype], shape)
    if not tensors:
        raise ValueError(f"a model needs at least one {kind}")
    return tensors
