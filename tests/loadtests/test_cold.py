"""Hundreds of families in virtual time: the budget holds, nobody is lost, and popular families stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loadtests.churn import Held, largest_message, slope_bytes
from loadtests.cold_scores import score_simulated, without_outcome
from loadtests.cold_simulated import ColdSimulation, Memory, Simulated
from loadtests.cold_workload import Tables, Visits, family_names, write_copies, zipf_visits
from loadtests.samples import Samples
from loadtests.sender import Sender
from router.family import Family, VariantProfile
from router.latency import table
from router.placement import Placement
from tests.service.families import looking_up, share_family, sign_model, write_family
from variants.manifest import ModelFile
from variants.repository import Repository
from variants.session import open_file

FAMILY = Family(
    "f",
    (
        VariantProfile("small", 0.8, table((1, 8), (0.001, 0.004))),
        VariantProfile("large", 0.9, table((1, 8), (0.004, 0.016))),
    ),
    max_batch=8,
)
BYTES, LOAD_S = {"small": 10, "large": 20}, {"small": 0.02, "large": 0.04}
NAMES = family_names(60)
SECONDS = 60.0


def simulated(order: str, visits: Visits, budget: int = 300) -> Simulated:
    placement = Placement(order=order)  # type: ignore[arg-type]  # one of the two words
    run = ColdSimulation(FAMILY, NAMES, Memory(BYTES, LOAD_S, budget), placement, np.random.default_rng(2))
    return run.run(visits, NAMES, 0.1)


@pytest.fixture(scope="module")
def visits() -> Visits:
    """Twenty requests a second for sixty families in the memory of ten."""
    return zipf_visits(len(NAMES), 1.1, 20.0, SECONDS, np.random.default_rng(1))


@pytest.mark.parametrize("order", ["value", "recency"])
def test_nobody_is_lost_and_the_budget_holds(order: str, visits: Visits) -> None:
    """Every request has one record with an answer; models never took more than is allowed."""
    run = simulated(order, visits)
    assert len(visits.family) == len(run.records) == len({record.request_id for record in run.records})
    assert all(record.variant for record in run.records)
    assert 0 < run.most_bytes <= 300
    assert 0 < run.evictions < run.loads


def test_value_loads_less_than_recency(visits: Visits) -> None:
    """Rare families do not push popular ones out: fewer loads than by LRU, and hot families are in time."""
    value, recency = simulated("value", visits), simulated("recency", visits)
    assert value.loads < recency.loads
    assert score_simulated(value, visits, 5, 0.2 * SECONDS, 300).hot >= 0.99


def test_the_same_seed_gives_the_same_run(visits: Visits) -> None:
    """Virtual time has no chance of its own."""
    assert simulated("value", visits).records == simulated("value", visits).records


def test_visits_follow_zipf() -> None:
    """With the exponent 1 the first of four families is asked for in 12 of 25 cases, and arrivals ascend."""
    visits = zipf_visits(4, 1.0, 1000.0, 10.0, np.random.default_rng(0))
    assert 0.48 == pytest.approx(float(np.mean(visits.family == 0)), abs=0.02)
    assert (np.diff(visits.arrival_s) >= 0).all()


def test_copies_are_families_of_their_own(tmp_path: Path) -> None:
    """Each verifies under its own name; models are the same files on disk."""
    write_family(Repository(tmp_path / "one"), "sign", {"quick": (sign_model(), 0.8)})
    write_copies(Repository(tmp_path / "one"), "sign", tmp_path / "many", ["a", "b"])
    repository = Repository(tmp_path / "many")
    assert ("a", "b") == repository.families()
    for name in "ab":
        folder = repository.open(name)
        assert (name, {}) == (json.loads((folder.path / "family.json").read_text())["name"], dict(folder.verify()))
        model = folder.file("quick/model.onnx")
        assert model.samefile(Repository(tmp_path / "one").open("sign").file("quick/model.onnx"))


@pytest.mark.parametrize(("tables", "as_tables", "in_memory"), [("shared", 1, 1), ("own", 1, 2), ("weights", 0, 0)])
def test_tables_of_copies(tmp_path: Path, tables: Tables, as_tables: int, in_memory: int) -> None:
    """All have one, each has its own, or each session has it as a weight; all files are there, and variants run."""
    source = Repository(tmp_path / "source")
    write_family(source, "one", {"only": (looking_up(), 0.8)})
    share_family(source, "one")
    write_copies(source, "one", tmp_path / "copies", ["a", "b"], tables=tables)
    seen = set()
    for name in "ab":
        folder = Repository(tmp_path / "copies").open(name)
        assert {} == folder.verify()
        parts = folder.manifest.parts_of("graphs/only.onnx")
        assert (as_tables, 1 - as_tables, 1) == (len(parts.tables), len(parts.weights), len(parts.files))
        seen |= {table.sha256 for table in parts.tables}
        session = open_file(folder, ModelFile("graphs/only.onnx"))
        assert (1, 2) == session.run({"x": np.ones((1, 4), np.float32)})["logits"].shape
    assert in_memory == len(seen)


def test_the_largest_message_has_the_longest_row_so_many_times() -> None:
    """One request that fills a batch."""
    text = np.array([b"short", b"a long one", b"some"], dtype=object)
    samples = Samples(
        "f",
        ("no", "yes"),
        {"text": text},
        {"text": "BYTES"},
        label=np.zeros(3, np.int64),
        size_class=np.array([0, 2, 1]),
        predicted={},
        confidence={},
    )
    _, body = largest_message(samples, 4)
    expected = {"name": "text", "shape": [4], "datatype": "BYTES", "data": ["a long one"] * 4}
    assert [expected] == json.loads(body)["inputs"]


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([], 0.0),
        ([Held(0, 5), Held(0, 9), Held(0, 7)], 0.0),
        ([Held(loads, 1000 + 30 * loads) for loads in range(10)], 30.0),
        ([*(Held(loads, 999_999 * loads) for loads in range(10)), *(Held(loads, 7) for loads in range(10, 20))], 0.0),
    ],
    ids=["nothing", "no loads", "a leak", "only at first"],
)
def test_growth_with_a_load(held: list[Held], expected: float) -> None:
    """The line through the second half of what was seen."""
    assert expected == pytest.approx(slope_bytes(held))


def test_a_request_without_an_outcome_is_told_of() -> None:
    """With what came of it, or that nothing did; an answer and a refusal are outcomes."""
    visits = Visits(np.array([0.0, 1.0, 2.0, 3.0]), np.array([7, 7, 8, 9]))
    sender = Sender("here", 1, [b""] * 4)
    sender.seen = [
        (1.0, b"HTTP/1.1 200 OK\r\n\r\n"),
        (2.0, b"HTTP/1.1 500 Internal Server Error\r\n\r\nno model"),
        None,
        (4.0, b"HTTP/1.1 429 Too Many Requests\r\n\r\n"),
    ]
    failed, silent = without_outcome(sender, visits)
    assert ("request 1 at 1.000 s of family 7" in failed, "no model" in failed) == (True, True)
    assert ("request 2 at 2.000 s of family 8" in silent, "nothing came" in silent) == (True, True)
