"""onnxruntime's own dynamic int8 quantization.

One activation scale is taken over the whole batch, so an answer depends on the rows that share it: it is not
batch-invariant, and does not compete while there are variants that are. `rowwise_int8` is the form without that fault;
this one is kept as the yardstick that most people know.
"""

from __future__ import annotations

from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from variants.recipes.artifact import Artifact
from variants.recipes.quiet import quiet

RECIPE = "dynamic-int8"


def dynamic_int8(source: Artifact, path: Path) -> Artifact:
    """Write `source` with int8 weights (one scale per output channel) and uint8 activations (one scale per batch).

    Weights have 7 bits, as in all int8 here: see `variants.recipes.int8_values`.
    """
    with quiet():
        quantize_dynamic(source.path, path, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    return source.next(path, RECIPE, "dynamic int8")
