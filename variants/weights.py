"""Trained weights that a build keeps, so that the next need not train again while nothing they depend on changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

Weights = Mapping[str, NDArray[np.float32]]

_KEY = "key"


def content_key(*parts: str | bytes | Path) -> str:
    """Return the SHA-256 of the parts, in hexadecimal; a path stands for its file's bytes (code, say)."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def kept_weights(path: Path, key: str, train: Callable[[], Weights]) -> Weights:
    """Return the weights kept at `path` if they were kept under the same key, else those of `train()`, kept now.

    One file per model: weights of another key are replaced. A file that cannot be read counts as none.
    """
    try:
        with safe_open(path, framework="numpy") as kept:
            if (kept.metadata() or {}).get(_KEY) == key:
                return load_file(path)
    except (OSError, SafetensorError):
        pass
    weights = train()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    save_file({name: np.ascontiguousarray(values) for name, values in weights.items()}, temporary, {_KEY: key})
    temporary.replace(path)
    return weights
