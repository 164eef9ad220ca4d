"""Graphs as LiteRT files, converted by `variants.porting.litert_tool` in an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from variants.porting.shapes import Signature
from variants.porting.tools import run_tool


def write_litert(graph: Path, target: Path, wanted: Sequence[Signature]) -> str:
    """Convert a float graph to these signatures; return which tools did. Raises `ToolError`."""
    order = {
        "graph": str(graph),
        "target": str(target),
        "signatures": [one._asdict() for one in wanted],
    }
    tools: str = run_tool("variants.porting.litert_tool", order)["tools"]
    return tools
