"""Static int8 quantization: activation scales are fixed beforehand, on calibration rows.

Fixed scales make the answers independent of the batch, and cost nothing at run time. The method is that of Jacob et
al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018; weights
have one scale per output channel and 7 bits (see `variants.recipes.int8_values`), those of depthwise convolutions 8:
no kernel adds their products in pairs, and of so few weights the last bit shows in the labels (docs/vision.md).

Outputs of matrix products stay float: on the text encoder, quantizing those too cost 0.8 points instead of 0.2.
Outputs of convolutions are quantized, because only then onnxruntime runs them as integers: four of 32 channels on 28x28
take 0.49 ms so, 0.64 ms with float outputs, 0.70 ms in fp32 (without VNNI), at the same error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from variants.preparation import Feeds
from variants.recipes.artifact import Artifact, RecipeError
from variants.recipes.folded_scaling import fold_scaling
from variants.recipes.quiet import quiet

RECIPE = "static-int8"
TEXT_OPERATORS = ("MatMul", "Gather")
_ACTIVATIONS = ("Clip", "Relu")
IMAGE_OPERATORS = ("Conv", "Gemm", "MatMul", *_ACTIVATIONS)
"""With `Relu` and `Clip` a convolution and its activation are one integer operation, whose range is that of what the
activation lets through; without, the output goes to float and back, and steps are spent on values that are cut off."""
_FLOAT_OUTPUTS = ("MatMul", "Gemm", "Gather")
_PERCENTILE = 99.99


class Calibration(StrEnum):
    """What decides an activation's range.

    `MINMAX` takes all that was seen. `ENTROPY` cuts where the clipped histogram loses the least information (Migacz,
    "8-bit Inference with TensorRT", 2017), `PERCENTILE` keeps the middle 99.99 %: both give outliers up for finer steps
    elsewhere. On the text encoder the first chose the plain range, and the second flipped twice as many labels.
    """

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


_METHODS = {
    Calibration.MINMAX: CalibrationMethod.MinMax,
    Calibration.ENTROPY: CalibrationMethod.Entropy,
    Calibration.PERCENTILE: CalibrationMethod.Percentile,
}


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
    operators: Sequence[str] = TEXT_OPERATORS,
    method: Calibration = Calibration.MINMAX,
) -> Artifact:
    """Write `source` with the given operator types in int8, scales taken from the `calibration` batches.

    Weights have one int8 scale per output channel, activations one uint8 scale per tensor. What shifts and scales a
    tensor before it is rounded becomes part of the rounding, where that is exact. Raises `RecipeError` where
    the batches are none or differ in shape (histograms of unequal batches cannot be joined), or where the graph has no
    such operator but activations, which only follow what they belong to.
    """
    batches = list(calibration)
    _check_shapes(batches)
    before = onnx.load(source.path, load_external_data=False)
    products = [kind for kind in operators if kind not in _ACTIVATIONS]
    if not {node.op_type for node in before.graph.node}.intersection(products):
        raise RecipeError(f"no {', '.join(products)} to quantize")
    with quiet():
        quantize_static(
            source.path,
            path,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=list(operators),
            calibrate_method=_METHODS[method],
            extra_options={
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": [kind for kind in operators if kind in _FLOAT_OUTPUTS],
                "CalibPercentile": _PERCENTILE,
                "TensorQuantOverrides": {
                    name: [{"axis": 0, "reduce_range": False}] for name in _depthwise_weights(before.graph)
                },
            },
        )
    fold_scaling(path)
    step = "static int8" if method is Calibration.MINMAX else f"static int8 ({method})"
    return source.next(path, RECIPE, step)


def _depthwise_weights(graph: onnx.GraphProto) -> list[str]:
    """The weights [n, 1, h, w] of convolutions that filter each of n channels alone, where nothing else reads them.

    onnxruntime's kernels for these widen both factors to 16 or 32 bits before they multiply, on AVX2 as well.
    """
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    filters: dict[str, bool] = {}
    for node in graph.node:
        groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
        for place, name in enumerate(node.input):
            shape = shapes.get(name, [])
            alone = (
                node.op_type == "Conv" and place == 1 and len(shape) == 4 and shape[:2] == [groups, 1] and groups > 1
            )
            filters[name] = filters.get(name, True) and alone
    return [name for name, alone in filters.items() if alone]


def _check_shapes(batches: Sequence[Feeds]) -> None:
    shapes = {tuple((name, values.shape) for name, values in sorted(batch.items())) for batch in batches}
    if not shapes:
        raise RecipeError("no calibration batches")
    if len(shapes) > 1:
        first, second = (dict(shape) for shape in sorted(shapes)[:2])
        name = next(name for name in first if first[name] != second.get(name))
        raise RecipeError(
            f"calibration batches of {name} have shapes {list(first[name])} and {list(second.get(name, ()))}: "
            "all must have the same"
        )
