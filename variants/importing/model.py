"""A foreign ONNX model as it came: its one input, and the output that is read as its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper

from variants.draft import TAKEN_INPUTS
from variants.importing.surgery import up_to_date, with_only_output
from variants.spec import BuildError

_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
_NUMBERS = _FLOATS | {
    *(onnx.TensorProto.BOOL, onnx.TensorProto.UINT8, onnx.TensorProto.UINT16, onnx.TensorProto.UINT32),
    *(onnx.TensorProto.INT8, onnx.TensorProto.INT16, onnx.TensorProto.INT32, onnx.TensorProto.INT64),
}
_LOG_FATAL_ONLY = 4
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A model that takes one tensor of numbers and gives an answer [n, k] as `output_name`.

    `files` are the file itself and those that weights lie in beside it; `input_type` is the input's ONNX element type;
    `row_shape` has None for a dimension of any length.
    """

    path: Path
    files: tuple[Path, ...]
    graph: onnx.ModelProto
    input_name: str
    input_type: int
    row_shape: tuple[int | None, ...]
    output_name: str

    @property
    def is_half(self) -> bool:
        """Whether it has 16-bit floats: as its input, or as weights."""
        types = {self.input_type, *(tensor.data_type for tensor in self.graph.graph.initializer)}
        return not types.isdisjoint({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})

    def check_rows(self, rows: NDArray[Any]) -> None:
        """Hold the shape of rows [n, ...] against the input. Raises `BuildError`."""
        given = rows.shape[1:]
        fits = len(given) == len(self.row_shape) and all(
            wanted in (None, length) for wanted, length in zip(self.row_shape, given, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if length is None else str(length) for length in ("n", *self.row_shape))
            raise BuildError(
                f"{self.path}: input {self.input_name!r} takes [{wanted}], "
                f"the samples are [{', '.join(map(str, ('n', *given)))}]"
            )

    def reader(self, tensor: str | None = None) -> ForeignReader:
        """Open the model to read its answer, or another tensor of it. Raises `BuildError` where that fails."""
        name = tensor or self.output_name
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _LOG_FATAL_ONLY
        settings.intra_op_num_threads = 1
        try:
            content = with_only_output(self.graph, name).SerializeToString()
            session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen unrelated types, protobuf one for models over 2 GB
            raise BuildError(f"{self.path}: cannot be opened: {_one_line(error)}") from error
        return ForeignReader(self, name, session)


@dataclass(frozen=True, slots=True)
class ForeignReader:
    """An opened foreign model, and the tensor that is read from it."""

    model: ForeignModel
    tensor: str
    session: onnxruntime.InferenceSession

    def read(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the tensor for rows [n, ...], which are cast to the model's type. Raises `BuildError`."""
        dtype = helper.tensor_dtype_to_np_dtype(self.model.input_type)
        try:
            (answer,) = self.session.run([self.tensor], {self.model.input_name: rows.astype(dtype)})
        except Exception as error:
            raise BuildError(
                f"{self.model.path}: fails on a batch of {len(rows)} (is its first dimension dynamic throughout?): "
                f"{_one_line(error)}"
            ) from error
        return np.asarray(answer)


def read_model(path: Path, output: str | None = None) -> ForeignModel:
    """Read an ONNX file; `output` names the one to read where there are several that could be meant.

    Raises `BuildError`: no ONNX file, not one input of numbers, no dynamic batch, no output of rank 2 or several.
    """
    try:
        loaded = onnx.load(path, load_external_data=False)
        files = (path, *_beside(path, loaded))
        onnx.load_external_data_for_model(loaded, str(path.parent))
        graph = up_to_date(loaded)
    except OSError as error:
        raise BuildError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise BuildError(f"{path}: cannot be read as ONNX: {_one_line(error)}") from error
    if not graph.graph.node or not graph.graph.output:
        raise BuildError(f"{path}: cannot be read as ONNX: it holds no graph")
    name, element_type, shape = _input(path, graph.graph)
    return ForeignModel(path, files, graph, name, element_type, shape, _output(path, graph.graph, output))


def _beside(path: Path, model: onnx.ModelProto) -> list[Path]:
    """Return the files beside a model that its weights lie in, as it names them."""
    external = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    entries = (entry for tensor in external for entry in tensor.external_data)
    return [path.parent / name for name in dict.fromkeys(entry.value for entry in entries if entry.key == "location")]


def _input(path: Path, graph: onnx.GraphProto) -> tuple[str, int, tuple[int | None, ...]]:
    if len(graph.input) != 1:
        names = ", ".join(value.name for value in graph.input) or "none"
        raise BuildError(f"{path}: has {len(graph.input)} inputs ({names}), only models of one input can be imported")
    (value,) = graph.input
    tensor = value.type.tensor_type
    if tensor.elem_type not in _NUMBERS:
        raise BuildError(f"{path}: input {value.name!r} is not a tensor of numbers")
    if not 0 < len(value.name) <= _LONGEST_NAME:
        raise BuildError(f"{path}: the name of its input is {len(value.name)} characters long, at most 64 are served")
    if value.name in TAKEN_INPUTS:
        raise BuildError(f"{path}: its input is called {value.name!r}, a name that is taken: rename it")
    dimensions = _dimensions(tensor)
    if not dimensions:
        raise BuildError(f"{path}: input {value.name!r} has no shape: export it as [rows, ...]")
    if dimensions[0] is not None:
        raise BuildError(
            f"{path}: input {value.name!r} has a fixed batch of {dimensions[0]}: export it with a dynamic first "
            f"dimension (dynamic_axes={{{value.name!r}: {{0: 'rows'}}, ...}})"
        )
    return value.name, tensor.elem_type, dimensions[1:]


def _output(path: Path, graph: onnx.GraphProto, wanted: str | None) -> str:
    floats: dict[str, tuple[int | None, ...]] = {
        value.name: _dimensions(value.type.tensor_type)
        for value in graph.output
        if value.type.tensor_type.elem_type in _FLOATS
    }
    if wanted is not None:
        if wanted not in floats:
            raise BuildError(f"{path}: has no output {wanted!r} of numbers, but {', '.join(floats) or 'none'}")
        floats = {wanted: floats[wanted]}
    answers = {name: shape for name, shape in floats.items() if not shape or len(shape) == 2}
    if len(answers) > 1:
        raise BuildError(f"{path}: has the outputs {', '.join(answers)}: choose one with --output")
    if not answers:
        given = "; ".join(f"{name} {_shown(shape)}" for name, shape in floats.items()) or "no tensor of floats"
        raise BuildError(f"{path}: expected an output of logits or probabilities [n, k], it has {given}")
    return next(iter(answers))


def _dimensions(tensor: onnx.TypeProto.Tensor) -> tuple[int | None, ...]:
    """Return the lengths of a tensor's dimensions, None for any; empty where its shape is not known."""
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('any' if length is None else str(length) for length in shape)}]"


def _one_line(error: BaseException) -> str:
    # What onnxruntime says stands behind the C++ function that says so, whose signature may be longer than a line.
    said = re.sub(r"/onnxruntime_src/\S+ .*?\)(?: const)? (?=\S)", "", " ".join(str(error).split()))
    return said[:300] or type(error).__name__
