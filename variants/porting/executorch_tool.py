"""Runs in the converters' environment: a graph as an ExecuTorch program for one fixed shape, computed by XNNPACK.

`python -m variants.porting.executorch_tool ORDER.json RESULT.json`, where the order has `graph`, `target` and
`signature` with `shapes` and `types` by input in the graph's order. The result says which `tools` made it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

from variants.porting.onnx_module import OnnxModule


def main(arguments: Sequence[str]) -> None:
    """Convert, and say by what."""
    asked, answered = map(Path, arguments)
    order = json.loads(asked.read_text())
    one = order["signature"]
    inputs = tuple(torch.from_numpy(np.ones(shape, one["types"][name])) for name, shape in one["shapes"].items())
    module = OnnxModule(Path(order["graph"])).eval()
    with torch.no_grad():
        program = torch.export.export(module, inputs)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    Path(order["target"]).write_bytes(lowered.buffer)
    answered.write_text(json.dumps({"tools": f"executorch {version('executorch')}"}))


if __name__ == "__main__":
    main(sys.argv[1:])
