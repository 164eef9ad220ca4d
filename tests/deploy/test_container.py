"""The container file: its own lines make an image, and that serves as nobody from a read-only root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.fetch import fetch
from loadtests.servers import ROOT, free_port
from tests.deploy.image import FILE, Container, Image, build, can_compile, can_run, running
from tests.service.conftest import eventually, sign_body
from tests.service.families import sign_model, write_family
from variants.repository import Repository


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if reason := can_run():
        pytest.skip(f"no image can be built here: {reason}")
    folder = tmp_path_factory.mktemp("image")
    yield build(folder, COMPILED=str(int(can_compile())))
    # Hundreds of megabytes, which pytest would keep for the next runs.
    shutil.rmtree(folder)


def test_the_linter_has_nothing_to_say() -> None:
    """hadolint, and shellcheck in it, find no fault."""
    hadolint = Path(sysconfig.get_path("scripts"), "hadolint")
    linted = subprocess.run([hadolint, FILE], capture_output=True, text=True, check=False)
    assert (0, "") == (linted.returncode, linted.stdout)


def test_the_context_has_what_is_copied() -> None:
    """`.dockerignore` leaves nothing out that the container file copies, and leaves in nothing else."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", FILE.read_text(), flags=re.MULTILINE)
    assert {name for names in copied for name in names.split()} == let_in
    assert [] == [name for name in let_in if not (ROOT / name).exists()]


def test_the_image_holds_what_serving_needs_and_no_more(image: Image) -> None:
    """No installer, no tool of building or testing; the version is the code's."""
    (packages,) = image.layer.glob("opt/pareto/lib/python3.*/site-packages")
    names = {path.name.split("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert {"pareto_gateway", "bentoml", "onnxruntime"} <= names
    tools = {"pip", "setuptools", "hatchling", "mypy", "torch", "onnx", "matplotlib", "locust", "pytest"}
    assert set() == tools & names
    assert [] == [path for path in image.files() if not path.startswith("/opt/pareto/")]


def test_its_router_is_compiled_and_decides_as_the_sources_do(image: Image, tmp_path: Path) -> None:
    """The same simulations, records and dispatches alike, by whichever is imported."""
    if not can_compile():
        pytest.skip("there is no C compiler here")
    (packages,) = image.layer.glob("opt/pareto/lib/python3.*/site-packages")

    def decided(packages: Path) -> tuple[str, str]:
        command = [sys.executable, str(ROOT / "tests" / "deploy" / "decided.py")]
        environment = {**os.environ, "PYTHONPATH": str(packages)}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        module, _, digest = ran.stdout.strip().rpartition(" ")
        return Path(module).suffix, digest

    (compiled, by_image), (sources, by_sources) = decided(packages), decided(ROOT)
    assert (".so", ".py") == (compiled, sources)
    assert by_image == by_sources


@pytest.fixture(scope="module")
def container(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Container, str]]:
    models = tmp_path_factory.mktemp("models")
    write_family(Repository(models), "sign", {"quick": (sign_model(), 0.8)})
    models.chmod(0o755)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # A budget as in the manifests: then a profile that cannot be stored in a read-only repository is one more thing.
    environment = {"PARETO_PORT": str(port), "PARETO_HOST": "127.0.0.1", "PARETO_MEMORY_BUDGET": "60%"}
    with running(image, models, environment) as started:

        def ready() -> bool:
            assert started.process.poll() is None, started.log.read_text()
            try:
                return fetch(f"{url}/v2/health/ready").status == 200
            except OSError:
                return False

        eventually(ready, "the container is ready")
        yield started, url


def test_it_serves_as_nobody_from_a_read_only_root(container: tuple[Container, str]) -> None:
    """A real answer; the processes have the image's user, no capability, and write to /tmp alone."""
    started, url = container
    before = started.image.files()
    answer = httpx.post(f"{url}/v2/models/sign/infer", json=sign_body(1.0), timeout=30.0)
    assert (200, ["yes"]) == (answer.status_code, answer.json()["outputs"][0]["data"])
    status = dict(re.findall(r"^(\w+):\t(.*)$", Path(f"/proc/{started.pid}/status").read_text(), flags=re.MULTILINE))
    assert ("65532", "0000000000000000", "1") == (status["Uid"].split()[0], status["CapEff"], status["NoNewPrivs"])
    assert "1" == status["NSpid"].split()[-1]
    mounts = [line.split() for line in Path(f"/proc/{started.pid}/mountinfo").read_text().splitlines()]
    assert ["ro"] == [line[5].split(",")[0] for line in mounts if line[4] == "/"]
    assert started.healthy()
    assert before == started.image.files()


def test_it_ends_as_engines_ask_it_to(container: tuple[Container, str]) -> None:
    """The stop signal to process 1 reaches the process that serves, which drains; then the end is a good one."""
    started, _ = container
    assert 0 == started.stop()
    assert "signal SIGTERM" in started.log.read_text()
    assert not started.healthy()
