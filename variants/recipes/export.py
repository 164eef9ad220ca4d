"""PyTorch to ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from variants.preparation import LOGITS
from variants.recipes.artifact import EXPORT, Artifact

OPSET = 17
"""The first opset with a LayerNormalization operator, so that none has to be recognised in pieces."""


def export(
    module: torch.nn.Module,
    example: Mapping[str, torch.Tensor],
    path: Path,
    *,
    lineage: Sequence[str],
    outputs: Sequence[str] = (LOGITS,),
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
) -> Artifact:
    """Write a module's graph, traced on `example` (its arguments by name, in order), as fp32 ONNX.

    The first dimension of every input and output is rows and may have any length; `dynamic_axes` adds others, by
    tensor name and axis. A trace follows one path only: control flow that depends on the data is not exported.
    """
    axes = {name: {0: "rows", **(dynamic_axes or {}).get(name, {})} for name in (*example, *outputs)}
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but the one that replaces it needs onnxscript and takes ten times longer.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(example.values()),
            str(path),
            input_names=list(example),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Artifact(path, EXPORT, tuple(lineage), parameters)
