from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.banner import try_line
from service.settings import Settings


@pytest.mark.parametrize(("side", "asks"), [(8, "/infer"), (260, "/v2/models/pictures")])
def test_the_line_to_try_can_be_pasted(side: int, asks: str) -> None:
    """A small row is sent as it is; where it is a picture, the line asks what the family takes."""
    tensor = SimpleNamespace(name="image", datatype="UINT8", shape=(-1, side, side))
    manifest = SimpleNamespace(name="pictures", inputs=(tensor,), default_slo_s=0.1)
    samples = {"image": np.zeros((2, side, side), dtype=np.uint8), "label": np.zeros(2, dtype=np.int64)}
    folder: Any = SimpleNamespace(manifest=manifest, samples=lambda: samples)
    line = try_line("http://h:1", folder, Settings())
    assert shlex.split(line)[2].endswith(asks)
    assert len(line) < 1000
