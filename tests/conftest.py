"""What holds for all tests: own settings and a busy machine change no result, and files run beside each other.

pytest-xdist hands whole files to one worker process for each core, so that what a module sets up is set up once.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import settings

from variants.fingerprint import available_cores

# Hypothesis fails an example that takes longer than 200 ms, which on a shared machine says nothing about the code.
# The same examples each time: no change fails by what an old rule makes of a rare number. `make fuzz` draws others.
settings.register_profile("pareto", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, derandomize=False, max_examples=1000)
settings.load_profile("pareto")

for variable in [name for name in os.environ if name.upper().startswith("PARETO_") and name != "PARETO_CACHE"]:
    del os.environ[variable]

TESTS = Path(__file__).parent
QUICK = ("router", "oip")
"""Folders of small files, none of which waits for a process: run last, they keep all workers busy to the end."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many workers as cores, or none where one file is asked for: starting them would take longer than they save."""
    named = {argument.partition("::")[0] for argument in config.args}
    one_file = len(named) == 1 and Path(config.invocation_params.dir, *named).is_file()
    workers = 1 if one_file else math.ceil(available_cores())
    return workers if workers > 1 else 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait for servers come first: one of them alone at the end would leave the other workers idle."""
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] in QUICK)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory without models and settings."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, elsewhere: None) -> None:
    """No variable of ours and no settings file in the working directory."""
    for name in os.environ:
        if name.upper().startswith("PARETO_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one family, `sign`, of two variants."""
    from tests.console import made

    return made(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def corrupt(tmp_path: Path) -> Path:
    """The same family, every model file of it damaged."""
    from tests.console import made

    root = made(tmp_path / "corrupt")
    for model in root.rglob("model.onnx"):
        model.write_bytes(model.read_bytes()[:-1])
    return root
