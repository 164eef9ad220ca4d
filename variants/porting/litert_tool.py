"""Runs in the converters' environment: a graph as a LiteRT file with one signature for each fixed shape.

`python -m variants.porting.litert_tool ORDER.json RESULT.json`, where the order has `graph`, `target` and `signatures`,
each with `name`, `shapes` and `types` by input in the graph's order. The result says which `tools` made it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import litert_torch
import numpy as np
import torch
from torch import Tensor

from variants.porting.onnx_module import OnnxModule


class Named(torch.nn.Module):
    """Takes and gives tensors by name, so that the file has the graph's names."""

    def __init__(self, module: OnnxModule) -> None:
        super().__init__()
        self._module = module

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Run the graph."""
        given = self._module(*(inputs[name] for name in self._module.input_names))
        return dict(zip(self._module.output_names, given, strict=True))


def main(arguments: Sequence[str]) -> None:
    """Convert, and say by what."""
    asked, answered = map(Path, arguments)
    order = json.loads(asked.read_text())
    module = Named(OnnxModule(Path(order["graph"]))).eval()
    converter = litert_torch
    for one in order["signatures"]:
        example = {name: torch.from_numpy(np.ones(shape, one["types"][name])) for name, shape in one["shapes"].items()}
        converter = converter.signature(one["name"], module, sample_kwargs=example)
    converter.convert(strict_export=False).export(order["target"])
    answered.write_text(json.dumps({"tools": f"litert-torch {version('litert-torch')}"}))


if __name__ == "__main__":
    main(sys.argv[1:])
