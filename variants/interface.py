"""What a family takes: the tensor that callers send, and how its rows are made ready for the models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from variants.frozen import Frozen
from variants.naming import RelativePath

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
"""Tensor element types by their Open Inference Protocol v2 names."""


class TensorSpec(Frozen):
    """One tensor of the family's public interface. -1 marks a dimension of any length; the first one is rows."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    datatype: Datatype
    shape: Annotated[tuple[Annotated[int, Field(ge=-1)], ...], Field(min_length=1)]


class TextPreparation(Frozen):
    """UTF-8 text is cut into at most `max_tokens` WordPiece tokens, special tokens included."""

    kind: Literal["wordpiece"] = "wordpiece"
    tokenizer_file: RelativePath
    max_tokens: Annotated[int, Field(ge=3)]


class TensorPreparation(Frozen):
    """A numeric tensor x becomes float32 `(x - mean) / scale`."""

    kind: Literal["tensor"] = "tensor"
    mean: float = 0.0
    scale: Annotated[float, Field(gt=0.0)] = 1.0


Preparation = Annotated[TextPreparation | TensorPreparation, Field(discriminator="kind")]


def check_rows(tensor: TensorSpec, preparation: Preparation, sizes: tuple[int, ...]) -> None:
    """Hold a family's tensor against its preparation, and both against its size classes.

    Raises `ValueError` naming the field and the fault.
    """
    if list(sizes) != sorted(set(sizes)):
        raise ValueError(f"sizes: {list(sizes)} do not ascend")
    if isinstance(preparation, TextPreparation):
        if tensor.datatype != "BYTES" or tensor.shape not in ((-1,), (-1, 1)):
            raise ValueError(f"inputs: text needs BYTES [-1] or [-1, 1], not {tensor.datatype} {list(tensor.shape)}")
        if preparation.max_tokens > sizes[-1]:
            raise ValueError(f"sizes: rows of up to {preparation.max_tokens} tokens do not fit {sizes[-1]}")
    else:
        if tensor.datatype == "BYTES" or tensor.shape[0] != -1 or any(length < 1 for length in tensor.shape[1:]):
            raise ValueError(
                f"inputs: a tensor needs numbers of shape [-1, n...], not {tensor.datatype} {list(tensor.shape)}"
            )
        if sizes != (1,):
            raise ValueError(f"sizes: a tensor family has the one size class [1], not {list(sizes)}")
