"""What models are thought to take, and what a load changes of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from service.model_sizes import ModelSizes
from variants.manifest import ModelFile
from variants.shared_parts import NOTHING_SHARED

FOLDER: Any = SimpleNamespace(
    manifest=SimpleNamespace(preparation=None, parts_of=lambda _: NOTHING_SHARED), size_bytes=lambda _: 10
)


@pytest.mark.parametrize(
    ("runtime", "gained", "expected"),
    [
        ("onnxruntime", 0, 75),  # freed memory that is used again does not show
        ("onnxruntime", 300, 200),
        ("openvino", 0, 100),  # what it takes for batches of new shapes is still to come
        ("openvino", 300, 200),
    ],
)
def test_what_a_load_changes(runtime: str, gained: int, expected: int) -> None:
    """Half of it is believed; of a runtime that grows with its batches, nothing below what was measured with all."""
    sizes = ModelSizes(FOLDER, "f")
    file = ModelFile("model.onnx", runtime)
    sizes.expect(file, [100])
    (key,) = sizes.keys([file])
    sizes.took([key], (), gained)
    assert expected == sizes.bytes[key]
