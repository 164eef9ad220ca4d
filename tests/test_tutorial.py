"""docs/tutorial.md, followed to the letter: its files are written, its commands run, its server asked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from loadtests.servers import ROOT, free_port
from tests.service.conftest import eventually

FILES = {"my_model.py": '"""The network', "my_family.py": '"""The family', "pareto.toml": "[families."}
"""By the name of a file, how its block begins."""


def blocks() -> Iterator[str]:
    """The indented blocks of the page, without their indentation, in order."""
    block: list[str] = []
    for line in [*(ROOT / "docs" / "tutorial.md").read_text().splitlines(), "end"]:
        if line.startswith("    ") or (block and not line):
            block.append(line[4:])
        elif block:
            yield "\n".join(block).strip() + "\n"
            block = []


HURRIES = 20
"""A machine that is busy with other tests has no time now and then for who is in a hurry, and says so: then again."""


def test_the_tutorial_leads_to_an_answer_of_the_model(tmp_path: Path) -> None:
    """Followed from top to bottom, every command succeeds, and the digit is read by a variant of the family."""
    given = list(blocks())
    for name, begin in FILES.items():
        (content,) = (block for block in given if block.startswith(begin))
        (tmp_path / name).write_text(content)
        given.remove(content)
    port = free_port()
    # `curl` is told the port of the test; everything else is as the page has it.
    commands = [
        line.replace("localhost:3000", f"127.0.0.1:{port}")
        for block in given
        for line in block.splitlines()
        if line.startswith(("pareto ", "python ", "curl "))
    ]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PARETO_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    serving: subprocess.Popen[str] | None = None
    said = ""
    try:
        for line in commands:
            if line == "pareto serve":
                with (tmp_path / "serve.log").open("w") as log:
                    serving = subprocess.Popen(
                        ["pareto", "serve"], cwd=tmp_path, env=environment, stdout=log, stderr=log, text=True
                    )
                eventually(lambda: ready(port), "the gateway is ready")
                continue
            for _ in range(HURRIES):
                ran = followed(line, tmp_path, environment)
                if " 429 Too Many Requests" not in ran.stdout:
                    break
            assert 0 == ran.returncode, f"{line}\n{ran.stdout}\n{ran.stderr}"
            said += ran.stdout
    finally:
        if serving is not None:
            serving.terminate()
            serving.wait(30)
    assert (tmp_path / "my-digits-frontier.html").is_file()
    answered = re.findall(r"(?m)^x-variant: (\S+)", said)
    assert 2 == len(answered)
    assert set() == set(answered) - {"mine-fp32", "mine-int8", "small-fp32"}


def followed(line: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", line]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False
