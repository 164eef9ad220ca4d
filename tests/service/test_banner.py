from __future__ import annotations

import json
import shlex
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from service.banner import banner, try_line
from service.configuration import KEYS
from service.settings import Settings
from tests.service.families import sign_model, write_family
from variants.repository import Repository


@pytest.mark.parametrize("is_named", [False, True])
def test_what_is_not_served_is_told(tmp_path: Path, is_named: bool) -> None:
    """Families, variants and memory that are missing have a line each, below the one that says it is ready.

    Of a family that memory does not suffice for no second one says so.
    """
    for name in ("sign", "aside"):
        write_family(Repository(tmp_path), name, {"quick": (sign_model(), 0.8), "better": (sign_model(1), 0.9)})
    told, lack = StringIO(), f"memory_budget leaves 1.0 MB for models{': aside (takes 2.0 MB)' if is_named else ''}"
    banner(
        Settings(models=tmp_path),
        1.0,
        Console(file=told),
        fault_of=lambda name: "" if name == "sign" else f"{name} cannot be loaded: see the log",
        lack=lack,
        refused={"sign": ["better"], "aside": ["quick", "better"]},
    )
    lines = [line.split(maxsplit=1) for line in told.getvalue().splitlines() if line.startswith("  ")]
    but = [content.strip() for label, content in lines if label == "but"]
    aside = [] if is_named else ["aside cannot be loaded: see the log"]
    assert [*aside, "sign serves without better: see the log", lack] == but


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


@pytest.mark.parametrize("side", [8, 260])
def test_the_line_to_try_has_a_key_where_there_are_keys(
    side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the shell's `KEY`, whether keys are in a file or in the environment."""
    tensor = SimpleNamespace(name="image", datatype="UINT8", shape=(-1, side, side))
    manifest = SimpleNamespace(name="pictures", inputs=(tensor,), default_slo_s=0.1)
    folder: Any = SimpleNamespace(manifest=manifest, samples=lambda: {"image": np.zeros((2, side, side), np.uint8)})
    wanted = '-H "authorization: Bearer $KEY"'
    assert wanted not in try_line("http://h:1", folder, Settings())
    assert wanted in try_line("http://h:1", folder, Settings(keys_file=tmp_path / "keys"))
    monkeypatch.setenv(KEYS, "me 0123456789abcdef")
    assert wanted in try_line("http://h:1", folder, Settings())


@pytest.mark.parametrize(
    ("datatype", "shape", "rows", "data"),
    [
        ("BYTES", (-1,), np.array([b"long " * 40, "très bon".encode()], dtype=object), ["très bon"]),
        ("FP32", (-1, 3), np.array([[13.73, 2.0, -0.5]], dtype=np.float32), [13.73, 2, -0.5]),
    ],
)
def test_the_line_to_try_brings_a_sample(datatype: str, shape: tuple[int, ...], rows: Any, data: list[Any]) -> None:
    """It holds a text that is not too long, or numbers with no more digits than they have."""
    tensor = SimpleNamespace(name="x", datatype=datatype, shape=shape)
    manifest = SimpleNamespace(name="mine", inputs=(tensor,), default_slo_s=0.1)
    folder: Any = SimpleNamespace(manifest=manifest, samples=lambda: {"x": rows})
    body = json.loads(shlex.split(try_line("http://h:1", folder, Settings()))[-1])
    assert [{"name": "x", "shape": [1, *shape[1:]], "datatype": datatype, "data": data}] == body["inputs"]
