"""Static int8 quantization: activation scales are fixed beforehand, on calibration rows.

Fixed scales make the answers independent of the batch, and cost nothing at run time. Minimum and maximum decide the
scale, and outputs of quantized operators stay float: quantizing those too costs several times the accuracy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from variants.preparation import Feeds
from variants.recipes.artifact import Artifact

RECIPE = "static-int8"


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime.quantization has no type information
    def __init__(self, batches: Iterable[Feeds]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Feeds | None:
        return next(self._batches, None)


def static_int8(
    source: Artifact,
    path: Path,
    calibration: Iterable[Feeds],
    *,
    operators: Sequence[str] = ("MatMul", "Gather"),
) -> Artifact:
    """Write `source` with the given operator types in int8, scales taken from the `calibration` batches.

    The batches must all have the same shape. Weights have one int8 scale per output channel, activations one uint8
    scale per tensor.
    """
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            source.path,
            path,
            _Batches(calibration),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=list(operators),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": list(operators)},
        )
    finally:
        logging.disable(logging.NOTSET)
    return source.next(path, RECIPE, "static int8")
