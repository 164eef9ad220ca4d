"""Trained weights that a build keeps, so that the next need not train again while nothing they depend on changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from variants.atomic import replacing
from variants.training.cost import cost_of_training

Weights = Mapping[str, NDArray[np.float32]]

_KEY, _FACTS = "key", "facts"


@dataclass(frozen=True, slots=True)
class Trained:
    """Weights by name, and what their training cost, as `Artifact.facts` has it; empty where nobody measured that."""

    weights: Weights
    facts: Mapping[str, float]


def content_key(*parts: str | bytes | Path) -> str:
    """Return the SHA-256 of the parts, in hexadecimal; a path stands for its file's bytes (code, say)."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def kept_weights(path: Path, key: str, train: Callable[[], Weights], labelled_rows: int) -> Trained:
    """Return the weights kept at `path` if they were kept under the same key, else those of `train()`, kept now.

    What training cost is kept with them. One file per model: weights of another key are replaced. A file that cannot
    be read counts as none.
    """
    try:
        with safe_open(path, framework="numpy") as kept:
            about = kept.metadata() or {}
            if about.get(_KEY) == key:
                return Trained(load_file(path), json.loads(about.get(_FACTS, "{}")))
    except (OSError, SafetensorError):
        pass
    with cost_of_training(labelled_rows) as facts:
        weights = train()
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {_KEY: key, _FACTS: json.dumps(facts)}
    with replacing(path) as temporary:
        save_file({name: np.ascontiguousarray(values) for name, values in weights.items()}, temporary, about)
    return Trained(weights, facts)
