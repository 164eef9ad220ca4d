"""Who may import whom: the table in docs/architecture.md, held against the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("router", "variants", "service", "loadtests")

CALLABLE_ANYWHERE = (
    *("service/cli.py", "service/commands/"),
    *("loadtests/microseconds.py", "loadtests/access_cost.py", "loadtests/cold_bytes.py"),
)
"""The CLI imports anything, inside its commands; stopwatch and scales have to be put to the service's own functions."""

FORBIDDEN_IN_ROUTER = frozenset(
    {"asyncio", "bentoml", "concurrent", "datetime", "io", "logging", "multiprocessing", "onnxruntime", "os", "pathlib"}
    | {"prometheus_client", "random", "secrets", "socket", "subprocess", "sys", "threading", "time", "torch"}
)
"""Clocks, randomness and everything that reaches out of the process."""

NOT_FOR_SERVING = frozenset({"torch", "torch_pruning", "matplotlib", "sklearn", "onnx", "locust", "pytest"})
"""Tools of building and testing."""


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """The dotted names that a file imports anywhere, `from a.b import c` as `a.b.c`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def table() -> dict[str, str]:
    """The rows of the import table: folder -> what it may import of ours, as written."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\|([^|]*)\|$", text, flags=re.MULTILINE)
    return {folder: rule.strip() for folder, rule in rows}


def permitted(package: str) -> tuple[str, ...]:
    """Dotted prefixes that a package may import besides its own, read from the table."""
    rule = table()[package]
    if rule == "nothing":
        return ()
    if "same modules as `service`" in rule:
        more = re.findall(r"and `([\w.]+)`", rule.partition("same modules as `service`")[2])
        return (*permitted("service"), *(f"variants.{name}" for name in more))
    before_the_cli = rule.split("(the CLI")[0]
    names = re.findall(r"`([\w.]+)`", before_the_cli)
    of_variants = "of `variants` only" in before_the_cli
    modules = [f"variants.{name}" if of_variants and name not in PACKAGES else name for name in names]
    return tuple(name for name in modules if name != "variants")


def is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def test_the_table_names_every_package() -> None:
    """The rules are read from the document, so the document has a row for each package."""
    assert {*PACKAGES, "deploy"} == set(table())
    assert permitted("router") == ()
    assert "router.family" in permitted("variants")
    assert "variants.session" in permitted("service")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_keep_to_the_table(package: str) -> None:
    """Of our own packages, a module imports its own and those that the table permits."""
    offences = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules_of(package)
        if not path.relative_to(ROOT).as_posix().startswith(CALLABLE_ANYWHERE)
        for name in imports_of(path)
        if name.split(".")[0] in PACKAGES
        and not any(is_under(name, prefix) for prefix in (package, *permitted(package)))
    ]
    assert offences == []


def test_the_router_is_pure() -> None:
    """Nothing in the router can read a clock, draw a random number or do I/O."""
    offences = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules_of("router")
        for name in imports_of(path)
        if name.split(".")[0] in FORBIDDEN_IN_ROUTER
    ]
    assert offences == []


def test_serving_loads_nothing_of_the_build() -> None:
    """What `bentoml serve` imports has neither torch or another tool of building, nor what only traces need."""
    program = "import sys, service.bento; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert set() == NOT_FOR_SERVING & {name.split(".")[0] for name in loaded}
    assert "opentelemetry.sdk" not in loaded


def test_help_loads_nothing_heavy() -> None:
    """`pareto --help` answers without onnxruntime, BentoML, numpy or pydantic."""
    program = "import sys, service.cli; service.cli.run(['--help']); print('LOADED', *sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in printed.stdout.rpartition("LOADED")[2].split()}
    assert set() == {"bentoml", "numpy", "onnxruntime", "pydantic", *NOT_FOR_SERVING} & loaded
