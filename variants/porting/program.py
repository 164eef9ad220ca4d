"""Graphs as exported programs of torch (`.pt2`): for any number of rows and tokens."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import torch

from variants.porting.onnx_module import OnnxModule
from variants.preparation import ATTENTION_MASK, Feeds
from variants.runtimes.torch_cpu import NAMES_FILE

MOST_ROWS = 1024
"""As many as a family's batches may have."""
LEAST_TOKENS = 2
"""Every text begins and ends with a token of its own. Of one, torch would export a program for just that."""


def write_program(graph: Path, target: Path, feeds: Feeds, most_tokens: int) -> None:
    """Export a float graph. `feeds` are an example, of text with at least 2 rows and 3 tokens.

    Raises `variants.porting.operator.UnsupportedError`, and what torch raises for what it cannot export.
    """
    module = OnnxModule(graph).eval()
    inputs = tuple(torch.from_numpy(feeds[name]) for name in module.input_names)
    rows = torch.export.Dim("rows", min=1, max=MOST_ROWS)
    sizes = {0: rows}
    if ATTENTION_MASK in feeds:
        sizes[1] = torch.export.Dim("tokens", min=LEAST_TOKENS, max=most_tokens)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # It tells of attributes that it serializes otherwise than before.
        logging.getLogger("torch.export").setLevel(logging.ERROR)
        program = torch.export.export(module, inputs, dynamic_shapes=((sizes,) * len(inputs),))
        names = {"inputs": module.input_names, "outputs": module.output_names}
        torch.export.save(program, target, extra_files={NAMES_FILE: json.dumps(names)})
