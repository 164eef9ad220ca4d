"""Under a memory budget batches that take much memory run in pieces, in threads and processes; without one, whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from loadtests.resident import most_resident_of, resident_of, serving_process
from loadtests.servers import gateway, running
from tests.service.conftest import sign_body
from tests.service.families import write_family
from tests.service.test_residency import bulky_model
from variants.repository import Repository

BUDGET = {"PARETO_MEMORY_BUDGET": "8GiB"}
PROCESSES = {"PARETO_ISOLATION": "processes"}
ROWS = (1.0, -1.0, 1.0, 1.0)
BULK = 4_000_000
ROW_BYTES = 4 * BULK


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family of which a row takes 16 MB while it runs, with a profile of this machine."""
    root = tmp_path_factory.mktemp("models")
    write_family(Repository(root), "wide", {"only": (bulky_model(bulk=BULK), 0.8)})
    with running(gateway(root, {"PARETO_SLOTS": "1"})):
        pass
    return root


@pytest.mark.parametrize("settings", [{}, BUDGET, BUDGET | PROCESSES], ids=["whole", "threads", "processes"])
def test_a_large_batch_takes_what_a_piece_of_it_does(models: Path, settings: Mapping[str, str]) -> None:
    """Four rows are answered in order; who runs them has little more for a moment than for one, and whole for four."""
    with running(gateway(models, {"PARETO_SLOTS": "1", "PARETO_POLICY": "fixed:only", **settings})) as server:

        def labels(*numbers: float) -> list[str]:
            answer = httpx.post(f"{server.url}/v2/models/wide/infer", json=sign_body(*numbers), timeout=30.0)
            return [str(label) for label in answer.raise_for_status().json()["outputs"][0]["data"]]

        # The first times, blocks are laid out where they stay.
        for _ in range(4):
            labels(*ROWS)
        worker = serving_process(server)
        processes = [worker, *worker.children(recursive=True)]
        for process in processes:
            try:
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")
            except OSError:
                pytest.skip("this machine does not tell how much memory there was at the most")
        before = [resident_of(process) for process in processes]
        expected = ["yes" if number > 0.0 else "no" for number in ROWS]
        assert expected == labels(*ROWS)
        taken = max(most_resident_of(one) - held for one, held in zip(processes, before, strict=True))
    if settings:
        assert taken < 2.5 * ROW_BYTES
    else:
        assert taken > 3 * ROW_BYTES
