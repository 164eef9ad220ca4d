"""onnxruntime's own dynamic int8 quantization.

One activation scale is taken over the whole batch, so an answer depends on the rows that share it; `rowwise_int8` is
the form without that fault. This one is kept as the yardstick that most people know.
"""

from __future__ import annotations

import logging
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from variants.recipes.artifact import Artifact

RECIPE = "dynamic-int8"


def dynamic_int8(source: Artifact, path: Path) -> Artifact:
    """Write `source` with int8 weights (one scale per output channel) and uint8 activations (one scale per batch)."""
    # It advises on every call, through the root logger, to preprocess the model first; that changes nothing here.
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(source.path, path, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)
    return source.next(path, RECIPE, "dynamic int8")
