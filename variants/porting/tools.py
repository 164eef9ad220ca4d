"""The environment of the converters: LiteRT's and ExecuTorch's want hundreds of packages that nothing else here does.

`make export-tools` makes it beside the environment that runs; programs of `variants.porting` run there as processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PYTHON = Path(sys.prefix) / "export" / "bin" / "python"
LIMIT_S = 1800.0
NO_TOOLS = "the converters are not installed: `make export-tools` in a checkout installs them"


class ToolError(Exception):
    """A converter is missing or failed. The message is one line."""


def check_tools() -> None:
    """Raise `ToolError` where the converters are not there."""
    if not PYTHON.is_file():
        raise ToolError(NO_TOOLS)


def run_tool(module: str, order: Mapping[str, Any], python: Path | None = None) -> Any:
    """Run `python -m module ORDER.json RESULT.json` in the converters' environment and return the result.

    Raises `ToolError`.
    """
    python = python or PYTHON
    if not python.is_file():
        raise ToolError(NO_TOOLS)
    # The process imports this package from where this one did, wherever it was started.
    root = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
    with tempfile.TemporaryDirectory(prefix="pareto-tool-") as folder:
        asked, answered = Path(folder) / "order.json", Path(folder) / "result.json"
        asked.write_text(json.dumps(order))
        command = [str(python), "-m", module, str(asked), str(answered)]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, env=environment, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"{module} took longer than {LIMIT_S:.0f} s") from error
        if ended.returncode != 0:
            said = [line for line in ended.stderr.splitlines() if line.strip()] or [f"exit code {ended.returncode}"]
            raise ToolError(" ".join(said[-1].split())[:300])
        return json.loads(answered.read_text())
