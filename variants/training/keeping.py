"""Whole models on disk, for what changes a network's graph: weights alone would not tell how to put it together.

Files are pickles: only read what this machine's own builds have written.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch

from variants.atomic import replacing
from variants.training.model import Model

_UNREADABLE = (
    *(OSError, RuntimeError, EOFError, AttributeError, ImportError, KeyError),
    *(TypeError, ValueError, pickle.UnpicklingError),
)


def kept_model(path: Path, key: str, make: Callable[[], Model]) -> Model:
    """Return the model kept at `path` if it was kept under the same key, else `make()`, kept now.

    One model per file; a file that cannot be read, or whose classes are gone, counts as none.
    """
    try:
        # The network's class is part of what is kept, and only a pickle holds that.
        kept = torch.load(path, weights_only=False)
        if kept["key"] == key:
            return Model(**kept["model"])
    except _UNREADABLE:
        pass
    model = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {entry.name: getattr(model, entry.name) for entry in fields(model)}
    with replacing(path) as temporary:
        torch.save({"key": key, "model": entries}, temporary)
    return model
