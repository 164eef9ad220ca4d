"""What an inference request has to be like, whichever encoding it comes in. Every fault is a `ProtocolError` 400."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from service.oip.datatypes import Array
from service.oip.errors import ProtocolError, malformed, shown
from service.oip.signature import ANY_LENGTH, Signature, Tensor

NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})

SCALARS = frozenset({str, int, float, bool})
_NOT_SUPPORTED = ("shared_memory_region", "classification")


class Limits(NamedTuple):
    """Bounds on one request. The body's size is bounded before it is decoded."""

    max_rows: int = 1024
    max_elements: int = 16_777_216
    """Of one tensor."""
    max_id_characters: int = 256


class OutputRequest(NamedTuple):
    """An output that the caller wants, and whether as raw bytes."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """A decoded request. `rows` is the first dimension of every input.

    `inputs` are read-only, aligned, C-contiguous arrays of the datatype's dtype, finite where floating-point; they may
    share memory with the body. `outputs` is empty where the caller names none: it gets all of them, as raw bytes where
    `binary_default` says so. `id` is empty where the caller gave none.
    """

    id: str
    parameters: Mapping[str, Any]
    inputs: dict[str, Array]
    rows: int
    outputs: tuple[OutputRequest, ...]
    binary_default: bool


class Inputs:
    """The inputs of one request, in the order in which they come: `expect` each, decode it, and `keep` it."""

    __slots__ = ("_expected", "_limits", "arrays", "rows")

    def __init__(self, signature: Signature, limits: Limits) -> None:
        self._expected = signature.inputs
        self._limits = limits
        self.arrays: dict[str, Array] = {}
        self.rows = 0

    def expect(self, name: Any, datatype: Any, shape: Any) -> tuple[Tensor, int]:
        """The tensor of that name, and how many elements a sound shape of it has."""
        expected = self._expected
        if type(name) is not str or name not in expected:
            raise malformed(f"inputs[{len(self.arrays)}].name", names(expected), shown(name))
        if name in self.arrays:
            raise malformed(f"input {name!r}", "it once", "it twice")
        tensor = expected[name]
        if datatype != tensor.datatype.name:
            raise malformed(f"input {name!r}: datatype", repr(tensor.datatype.name), shown(datatype))
        return tensor, _elements(shape, tensor, self._limits)

    def keep(self, name: str, array: Array) -> None:
        """Take the array of an expected input."""
        if not self.arrays:
            self.rows = len(array)
        elif len(array) != self.rows:
            first = next(iter(self.arrays))
            raise malformed(f"input {name!r}: shape[0]", f"{self.rows} rows as in input {first!r}", str(len(array)))
        self.arrays[name] = array

    def finish(self) -> None:
        """There are no more inputs."""
        if len(self.arrays) != len(self._expected):
            missing = next(name for name in self._expected if name not in self.arrays)
            raise malformed("inputs", names(self._expected), f"no input {missing!r}")


def _elements(shape: Any, tensor: Tensor, limits: Limits) -> int:
    spec = tensor.shape
    if type(shape) is not list or len(shape) != len(spec):
        got = (
            str(shape)[:80]
            if type(shape) is list and len(shape) < 9 and SCALARS.issuperset(map(type, shape))
            else shown(shape)
        )
        raise malformed(f"input {tensor.name!r}: shape", f"{list(spec)} (-1: any length)", got)
    elements = 1
    for axis, (length, wanted) in enumerate(zip(shape, spec, strict=True)):
        if type(length) is not int or length < 1 or wanted not in (length, ANY_LENGTH):
            what = "a positive integer" if wanted == ANY_LENGTH else str(wanted)
            raise malformed(f"input {tensor.name!r}: shape[{axis}]", what, shown(length))
        elements *= length
    if shape[0] > limits.max_rows:
        raise malformed(f"input {tensor.name!r}: shape[0]", f"at most {limits.max_rows} rows", str(shape[0]))
    if elements > limits.max_elements:
        raise malformed(f"input {tensor.name!r}: shape", f"at most {limits.max_elements} elements", str(elements)[:80])
    return elements


def check_id(given: Any, limits: Limits) -> None:
    """The caller's own name for a request is short."""
    if type(given) is not str or len(given) > limits.max_id_characters:
        raise malformed("id", f"a string of at most {limits.max_id_characters} characters", shown(given))


def check_output(index: int, name: Any, wanted: Mapping[str, OutputRequest], signature: Signature) -> None:
    """A wanted output is there, and is not wanted already."""
    if type(name) is not str or name not in signature.outputs:
        raise malformed(f"outputs[{index}].name", names(signature.outputs), shown(name))
    if name in wanted:
        raise malformed(f"output {name!r}", "it once", "it twice")


def flag(field: str, value: Any, default: bool) -> bool:
    """A parameter that is true or false; `None` where it is not given."""
    if value is None:
        return default
    if type(value) is not bool:
        raise malformed(field, "true or false", shown(value))
    return value


def wants_binary(parameters: Mapping[str, Any], default: bool = False) -> bool:
    """Whether a request wants its outputs as raw bytes, where they do not say so themselves."""
    return flag("parameters.binary_data_output", parameters.get("binary_data_output"), default)


def refuse_unsupported(field: str, parameters: Mapping[str, Any]) -> None:
    """Refuse Triton's extensions to a tensor that are not here, rather than answer something else."""
    for name in _NOT_SUPPORTED:
        if name in parameters:
            raise ProtocolError(400, f"{field}: parameter {name} is not supported")


def names(tensors: Mapping[str, Tensor]) -> str:
    """The tensors that there are, for a message."""
    return " and ".join(repr(name) for name in tensors) if len(tensors) < 9 else f"{len(tensors)} known tensors"
