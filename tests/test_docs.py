"""Programs in docs/ run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

from variants.build import build_family
from variants.families import load_family
from variants.repository import Repository

DOCS = Path(__file__).parent.parent / "docs"
ROOT = DOCS.parent


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


def test_every_metric_is_documented() -> None:
    """What the service names, some page of docs/ explains: by its name, or by the end of it behind `...`."""
    code = "\n".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    text = "\n".join(path.read_text() for path in DOCS.glob("*.md"))
    named = {plain(name) for name in re.findall(r'"(pareto_[a-z_]+)"', code)} - {"pareto_gateway"}
    told = {plain(name) for name in re.findall(r"\bpareto_[a-z_]+", text)}
    ends = tuple(plain(end) for end in re.findall(r"`\.\.\.(_[a-z_]+)", text))
    # Shares are named by what they are shares of; `_ratio` and the ends of their interval are added.
    told |= {name.removesuffix("_ratio") for name in told}
    assert set() == {name for name in named - told if not name.endswith(ends)}


def plain(name: str) -> str:
    """A metric's name without what the exposition format adds to it."""
    return re.sub(r"(_total|_bucket|_sum|_count|_info|_)+$", "", name)


def test_the_readme_leads_to_every_page_and_names_every_module() -> None:
    """Each page of docs/ is one hop away, links lead somewhere, and the file map has the parts as they are."""
    readme = (ROOT / "README.md").read_text()
    assert [] == [page.name for page in DOCS.glob("*.md") if f"docs/{page.name}" not in readme]
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        assert [] == [link for link in links if not (page.parent / link).exists()], page
    found = readme[readme.index("## File map") : readme.index("## Data, models")]
    folders = re.split(r"^    (\w+)/ ", found, flags=re.MULTILINE)
    for folder, text in zip(folders[1::2], folders[2::2], strict=True):
        if folder in ("router", "variants", "service"):
            named = re.findall(r"[\w*]+\.py", text)
            files = [path.name for path in (ROOT / folder).glob("[!_]*.py")]
            assert [] == [name for name in files if not any(fnmatch(name, one) for one in named)], folder
            assert [] == [one for one in named if not list((ROOT / folder).glob(one))], folder
