"""What is sent: the workload that is simulated, shared among families and tenants, and among generators, whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.generator_faults import Sending
from loadtests.harness.cargo import Cargo, Plan, Way, share
from loadtests.harness.measured import MOST_BLOCKS
from loadtests.harness.part import Part, merged
from loadtests.harness.rows import RowsError, Stock, from_file, from_repository
from loadtests.harness.smoke import plan_of
from loadtests.harness.subject import Names, with_own
from loadtests.harness.target import Served
from loadtests.load import Load
from loadtests.outcomes import LOST, Fate, Reply, Results
from loadtests.scoring import score
from loadtests.traces import TraceError
from loadtests.workload import SloMix
from tests.loadtests.judged import ROWS, answered, load, member, subject

TWO = (member("a", "20", 0.25), member("b", "50:1,200:1", 0.75))


@pytest.mark.parametrize("process", ["poisson", "gamma", "onoff", "surge"])
def test_one_family_is_sent_what_is_simulated(process: str) -> None:
    """Of a seed, the plan is the very workload that `pareto simulate` draws."""
    one = Load(SloMix.parse("50"), 4.0, 100.0, process)
    work, plan = one.draw(ROWS, 7), subject().draw(one, 7)
    for name in ("arrival_s", "slo_s", "sample"):
        np.testing.assert_array_equal(getattr(work, name), getattr(plan.workload, name))
    assert work.description == plan.workload.description


@pytest.mark.parametrize(
    ("text", "said"), [("50", "50 ms"), ("50:1", "50 ms"), ("200:0.3,50:0.7", "50 ms (70 %), 200 ms (30 %)")]
)
def test_slos_are_told_in_words(text: str, said: str) -> None:
    """With their shares where there are several, and not as the flag has them."""
    assert said == SloMix.parse(text).said


def test_families_share_the_arrivals_by_weight_and_keep_their_own() -> None:
    """Each request is one family's, with an SLO and a row of that family; nothing is lost or doubled."""
    of = subject(*TWO, tenants=Names.parse(["gold:1", "free:3"], "--tenant"))
    plan = of.draw(load(500.0, 10.0), 3)
    np.testing.assert_array_equal(subject().draw(load(500.0, 10.0), 3).workload.arrival_s, plan.workload.arrival_s)
    first = plan.way == 0
    assert {0.02} == set(plan.workload.slo_s[first])
    assert {0.05, 0.2} == set(plan.workload.slo_s[~first])
    assert plan.workload.sample[first].max() < ROWS <= plan.workload.sample[~first].min()
    assert pytest.approx(0.25, abs=0.03) == first.mean()
    assert pytest.approx(0.75, abs=0.03) == (plan.tenant == 1).mean()


@given(count=st.integers(1, 60), parts=st.integers(1, 8), cut=st.data())
def test_generators_share_a_plan_and_merge_it_exactly(count: int, parts: int, cut: st.DataObject) -> None:
    """Every request is sent by one generator; what each hands in, also over the wire, stands where it belongs."""
    rng = np.random.default_rng(count)
    plan = subject().of(np.sort(rng.uniform(0.0, 1.0, count)), "x", rng)
    shares = [plan.of(share(parts, part)) if part < count else None for part in range(parts)]
    assert count == sum(len(own) for own in shares if own is not None)
    handed: list[Part | None] = []
    for own in shares:
        if own is None:
            handed.append(None)
            continue
        results = Results.pending(len(own))
        for index, sample in enumerate(own.workload.sample.tolist()):
            results.take(index, Reply(Fate.ANSWERED, sample, f"v{sample}", 0.5, 0.25, sample % 2 == 0), 1.0 + sample)
        sent = cut.draw(st.integers(0, len(own)))
        part = Part(results, Sending(own.workload.arrival_s, 0.5, 3), np.arange(len(own)) < sent, 7.0)
        handed.append(Part.unpack(part.pack()))
    whole = merged(handed, count)
    assert plan.workload.sample.tolist() == whole.results.label.tolist()
    assert (1.0 + plan.workload.sample).tolist() == whole.results.latency_s.tolist()
    assert [f"v{sample}" for sample in plan.workload.sample] == whole.results.variant.tolist()
    assert plan.workload.arrival_s.tolist() == whole.sending.lag_s.tolist()
    assert sum(int(part.due.sum()) for part in handed if part is not None) == int(whole.due.sum())


def test_a_lost_generator_leaves_its_share_unsent_and_the_run_invalid() -> None:
    """The others' results count, and the fault says how many are missing."""
    of = subject()
    plan = of.draw(load(100.0, 1.0), 0)
    run = answered(of, plan)
    half = Part(run.ran.results.of(share(2, 0)), Sending(np.zeros(len(plan))[::2], 0.5, 3), plan.way[::2] == 0, 0.0)
    whole = merged([half, None], len(plan))
    found = score(plan.workload, of.label, whole.results, whole.sending)
    lost = len(plan) // 2
    assert {LOST} == set(whole.results.reason[1::2])
    assert (f"a worker was lost, and with it {lost} requests",) == found.faults


def test_cargo_and_plan_travel_whole() -> None:
    """Between processes nothing changes; headers are kept out of what is printed."""
    of = subject(*TWO, tenants=Names.parse(["gold"], "--tenant"))
    cargo, plan = of.cargo(), of.draw(load(), 1)
    assert cargo == Cargo.unpack(cargo.pack())
    read = Plan.unpack(plan.pack())
    np.testing.assert_array_equal(plan.way, read.way)
    np.testing.assert_array_equal(plan.workload.slo_s, read.workload.slo_s)
    secret = Cargo("http://g", (), (), {}, headers={"authorization": "Bearer xyz"})
    assert "xyz" not in repr(secret)


def test_smoke_asks_every_family_and_every_variant_once() -> None:
    """By a row of its own."""
    of = subject(*TWO)
    plan = plan_of(of, list(of.ways()), 0)
    asked = [of.ways()[way] for way in plan.way]
    assert [Way("a"), Way("b"), *(Way(f, v) for f in ("a", "b") for v in ("small", "large"))] == asked
    assert [place >= ROWS for place in plan.workload.sample] == [way.family == "b" for way in asked]


@pytest.mark.parametrize("texts", [["a:0"], ["a:x"], [":1"], ["a", "a"], ["a:-1"], ["a:inf"]])
def test_names_with_odd_weights_are_refused(texts: list[str]) -> None:
    """The flag and the part are named."""
    with pytest.raises(TraceError, match="--family: expected names"):
        Names.parse(texts, "--family")


def test_without_an_slo_somebody_has_to_name_one() -> None:
    """Where the gateway does not say what the family's is."""
    known = member().served
    silent = Served(known.family, known.variants, known.shapes, known.datatypes, None, None)
    stocks = {"tiny": (silent, member().stock)}
    with pytest.raises(TraceError, match="give --slo-mix"):
        with_own(stocks, Names(("tiny",), (1.0,)), None)
    (one,) = with_own(stocks, Names(("tiny",), (1.0,)), SloMix.parse("30"))
    assert "30:1" == str(one.mix)


def test_a_run_is_cut_into_blocks_and_bins_that_hold_everything() -> None:
    """Counts of all stretches add up to the whole, by variant and by reason too."""
    of = subject(*TWO)
    run = answered(of, of.draw(load(200.0, 10.0), 1))
    values = run.values()
    series, blocks, count = values["series"], values["blocks"], values["score"]["arrivals"]
    assert count == sum(series["due"]) == sum(block["requests"] for block in blocks)
    assert MOST_BLOCKS == len(blocks)
    shares = values["score"]["fates"]
    assert round(shares["answered"] * count) == sum(sum(line) for line in series["variants"].values())
    assert {"deadline_infeasible": round(shares["refused"] * count)} == values["reasons"]
    assert {"a/small", "a/large", "b/small", "b/large"} == set(series["variants"])
    assert {"a", "b"} == set(values["families"])


def served(shape: tuple[int, ...], datatype: str) -> Served:
    return Served("f", ("v",), {"x": shape}, {"x": datatype}, None, None)


def test_rows_come_from_npz_and_csv(tmp_path: Path) -> None:
    """Numbers as arrays, texts as a column; labels as names, or as numbers of names."""
    np.savez(tmp_path / "n.npz", x=np.zeros((3, 4)), label=[0, 1, 1], labels=["no", "yes"])
    (tmp_path / "t.csv").write_text('x,label\n"a, b",yes\nc,no\n')
    numbers = from_file(tmp_path / "n.npz", served((-1, 4), "FP32"))
    texts = from_file(tmp_path / "t.csv", served((-1,), "BYTES"))
    assert (("no", "yes"), [0, 1, 1], True) == (numbers.labels, numbers.label.tolist(), numbers.labelled)
    assert (("yes", "no"), [0, 1]) == (texts.labels, texts.label.tolist())
    assert b'"data":["a, b"]' in texts.messages[0].body
    np.savez(tmp_path / "bare.npz", x=np.zeros((3, 4)))
    assert not from_file(tmp_path / "bare.npz", served((-1, 4), "FP32")).labelled


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": np.zeros((2, 4))}, "has no 'x', which f takes; it has y"),
        ({"x": np.zeros((2, 5))}, r"'x' is \[2, 5\], f takes \[-1, 4\]"),
        ({"x": np.zeros((2, 4)), "label": [1]}, "expected one for each of 2 rows"),
        ({"x": np.zeros((2, 4)), "label": [0, 5], "labels": ["a", "b"]}, "has values 0 to 5, 'labels' 2 names"),
        ({"x": np.full((2, 4), "z")}, "'x' does not become FP32"),
        ({"x": np.zeros((0, 4))}, "one number of rows"),
        ({"x": np.float32(1.0)}, r"'x' is \[\], f takes \[-1, 4\]"),
        ({"x": np.zeros((2, 4)), "label": np.int64(1)}, r"'label' is \[\], expected one for each of 2 rows"),
        ({"x": np.zeros((2, 4)), "label": [0, 5], "labels": "a"}, "has values 0 to 5, 'labels' 1 names"),
    ],
)
def test_odd_files_of_rows_are_one_line(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    """What is wrong, in which file."""
    np.savez(tmp_path / "odd.npz", **arrays)  # type: ignore[arg-type]  # numpy's own keyword is typed alike
    with pytest.raises(RowsError, match=says):
        from_file(tmp_path / "odd.npz", served((-1, 4), "FP32"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("no.npz", None, "cannot be read"),
        ("no.csv", None, "cannot be read"),
        ("broken.npz", b"PK\x03\x04rest", "cannot be read as .npz"),
        ("broken.csv", b"", "cannot be read as CSV"),
        ("short.csv", b"x,label\na\n", "row 2 has 1 fields, the heading 2"),
    ],
)
def test_damaged_files_of_rows_are_one_line(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    """Missing, broken or ragged."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RowsError, match=says):
        from_file(tmp_path / name, served((-1,), "BYTES"))


def test_a_repository_gives_rows_of_the_served_revision(models: Path) -> None:
    """By itself only where it has that very revision; where it was named, whatever is active there."""

    def of(revision: str | None) -> Served:
        return Served("tiny", ("small",), {"x": (-1, 4)}, {"x": "FP32"}, revision, None)

    def stock(revision: str | None, same: bool) -> Stock | None:
        return from_repository(models, of(revision), same_revision=same)

    assert (None, None) == (stock("other", True), stock(None, True))
    same, named = stock("r1", True), stock("other", False)
    assert same is not None
    assert named is not None
    assert ("64 rows: test part of revision r1", 64) == (same.source, len(same.messages))
    assert "not the one served (other)" in named.source
