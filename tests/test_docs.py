"""Programs in docs/ run as they are printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from variants.build import build_family
from variants.families import load_family
from variants.repository import Repository

DOCS = Path(__file__).parent.parent / "docs"


def program(page: str) -> str:
    """The one indented block of a page that imports something, without its indentation."""
    blocks: list[list[str]] = [[]]
    for line in (DOCS / page).read_text().splitlines():
        if line.startswith("    ") or (blocks[-1] and not line):
            blocks[-1].append(line[4:])
        elif blocks[-1]:
            blocks.append([])
    (found,) = (block for block in blocks if any(line.startswith(("import ", "from ")) for line in block))
    return "\n".join(found)


def test_the_family_of_the_docs_is_built(tmp_path: Path) -> None:
    """All three variants of docs/family.md are published and right on nine tenths of the test part."""
    path = tmp_path / "my_family.py"
    path.write_text(program("family.md"))
    build_family(load_family(str(path)), Repository(tmp_path / "models"), cache=tmp_path / "cache")
    variants = Repository(tmp_path / "models").open("tumours").manifest.variants
    assert ["small-fp32", "wide-fp32", "wide-int8"] == [variant.name for variant in variants]
    assert all(variant.quality.value > 0.9 for variant in variants)


def test_the_recipes_of_the_docs_run(tmp_path: Path) -> None:
    """The pipeline of docs/recipes.md prints its two steps and writes the ONNX file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(DOCS.parent)}
    ran = subprocess.run(
        [sys.executable, "-c", program("recipes.md")],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert 0 == ran.returncode, ran.stderr
    assert ["training", "magnitude pruning"] == [line.split(" (")[0].split(" {")[0] for line in ran.stdout.splitlines()]
    assert (tmp_path / "small.onnx").is_file()
