"""Runs in the converters' environment: a graph as an ExecuTorch program for one fixed shape, computed by XNNPACK.

`python -m variants.porting.executorch_tool ORDER.json RESULT.json`, where the order has `graph`, `target`, `precision`
("fp32", or "int8": weights in int8, activations quantized while it runs) and `signature` with `shapes` and `types` by
input in the graph's order. The result says which `tools` made it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor

from variants.porting.onnx_module import OnnxModule


def main(arguments: Sequence[str]) -> None:
    """Convert, and say by what."""
    asked, answered = map(Path, arguments)
    order = json.loads(asked.read_text())
    one = order["signature"]
    inputs = tuple(torch.from_numpy(np.ones(shape, one["types"][name])) for name, shape in one["shapes"].items())
    module: torch.nn.Module = OnnxModule(Path(order["graph"])).eval()
    partitioners = [XnnpackPartitioner()]
    if order["precision"] == "int8":
        module = _quantized(module, inputs)
        partitioners = [XnnpackDynamicallyQuantizedPartitioner(), *partitioners]
    with torch.no_grad():
        program = torch.export.export(module, inputs)
    lowered = to_edge_transform_and_lower(program, partitioner=partitioners).to_executorch()
    Path(order["target"]).write_bytes(lowered.buffer)
    answered.write_text(json.dumps({"tools": f"executorch {version('executorch')}"}))


def _quantized(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> torch.nn.Module:
    """Put weights of matrices into int8, each with a scale for every channel."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (  # noqa: PLC0415 - takes seconds
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # noqa: PLC0415 - the same

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    prepared = prepare_pt2e(torch.export.export(module, inputs).module(), quantizer)
    prepared(*inputs)
    quantized: torch.nn.Module = convert_pt2e(prepared)
    return quantized


if __name__ == "__main__":
    main(sys.argv[1:])
