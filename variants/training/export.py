"""A trained model as ONNX, its lineage and what it cost with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from variants.recipes.artifact import Artifact
from variants.recipes.export import export
from variants.recipes.folded_int8 import fold_int8
from variants.training.fake_quantization import roundings
from variants.training.model import Model

QUANTIZED = "quantization-aware-int8"
"""The recipe of graphs whose weights and activations were rounded to int8 while training."""


def export_model(model: Model, path: Path) -> Artifact:
    """Write the model's graph: any number of rows, fp32 but for what quantization-aware training made int8.

    The parity check of `variants.candidates` compares it with `model.reference()`.
    """
    artifact = export(model.module, model.example, path, lineage=model.history, dynamic_axes=model.dynamic_axes)
    if not roundings(model.module):
        return replace(artifact, facts=model.facts)
    fold_int8(path)
    return replace(artifact, facts=model.facts, recipe=QUANTIZED)
