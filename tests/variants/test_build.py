from __future__ import annotations

import hashlib
import io
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from variants.build import build_family
from variants.families import load_family
from variants.manifest import VariantManifest
from variants.progress import BuildProgress, LineDisplay, Step, duration
from variants.recipes.artifact import Artifact
from variants.repository import Repository
from variants.selection import paired_difference, select
from variants.sources import fetch, fetch_first
from variants.spec import BuildContext, BuildError, Candidate, Dataset, FamilySpec
from variants.weights import content_key, kept_weights

SIDES = '''
"""A family in one file: on which side of a line is a point?"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from variants.manifest import TensorPreparation, TensorSpec
from variants.recipes.artifact import Artifact
from variants.spec import Candidate, FamilySpec, LabelledRows, split


def load(context):
    points = np.random.default_rng(0).standard_normal((400, 2)).astype(np.float32)
    rows = LabelledRows({"point": points}, (points.sum(axis=1) > 0).astype(np.int64))
    return split(rows, train=10, validation=90, seed=0)


def make(path, blur):
    weights = np.array([[-1, 1], [-1 + blur, 1 - blur]], dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["point", "weights"], ["logits"])],
        "sides",
        [helper.make_tensor_value_info("point", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Artifact(path, "by hand", ("by hand",), 4)


def build(context, data):
    yield Candidate("exact", lambda path: make(path, 0.0))
    yield Candidate("blurred", lambda path: make(path, 0.9))


FAMILY = FamilySpec(
    name="sides",
    description="points",
    labels=("below", "above"),
    inputs=(TensorSpec(name="point", datatype="FP32", shape=(-1, 2)),),
    preparation=TensorPreparation(),
    load=load,
    build=build,
    default_slo_s=0.05,
    samples=50,
)
'''


@pytest.fixture
def sides(tmp_path: Path) -> FamilySpec:
    path = tmp_path / "sides.py"
    path.write_text(textwrap.dedent(SIDES))
    return load_family(str(path))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


def build(spec: FamilySpec, repository: Repository, output: io.StringIO | None = None) -> Any:
    display = LineDisplay("build", output or io.StringIO())
    return build_family(spec, repository, display=display, cache=repository.root / "cache", jobs=1)


def with_candidate(spec: FamilySpec, candidate: Candidate) -> FamilySpec:
    """The family with one more candidate."""

    def more(context: BuildContext, data: Dataset) -> Iterator[Candidate]:
        yield from spec.build(context, data)
        yield candidate

    return replace(spec, build=more)


def failing(error: BaseException, essential: bool = False) -> Candidate:
    def fail(path: Path) -> Artifact:
        path.write_bytes(b"half a model")
        raise error

    return Candidate("broken", fail, essential=essential)


def test_a_family_is_one_python_file(sides: FamilySpec, repository: Repository) -> None:
    """A spec loaded from a path is built, measured, published and opened again like a built-in one."""
    build(sides, repository)
    revision = repository.open("sides")
    quality = {variant.name: variant.quality.value for variant in revision.manifest.variants}
    assert 1.0 == quality["exact"] > quality["blurred"] > 0.6
    assert {} == revision.verify()
    assert 50 == len(revision.samples()["label"])
    assert (90, 50) == (len(revision.calibration("exact").label), len(revision.calibration("exact").sample_predicted))


def test_a_recipe_that_fails_fails_alone(sides: FamilySpec, repository: Repository) -> None:
    """The other variants are built; the reason is shown and stored, without folders of the building machine."""
    output = io.StringIO()
    error = ValueError(f"cannot read\n{repository.root}/sides")
    revision = build(with_candidate(sides, failing(error)), repository, output)
    assert ["exact", "blurred"] == [variant.name for variant in revision.manifest.variants]
    assert "broken is left out: ValueError: cannot read" in output.getvalue()
    assert str(revision.manifest.build["left_out.broken"]).startswith("ValueError: cannot read")
    assert not any(entry.path.startswith("broken") for entry in revision.manifest.files)


def test_a_model_that_cannot_be_opened_is_left_out(sides: FamilySpec, repository: Repository) -> None:
    """A recipe that writes rubbish without noticing is found out when its file is opened."""

    def rubbish(path: Path) -> Artifact:
        path.write_bytes(b"rubbish")
        return Artifact(path, "rubbish", (), 0)

    revision = build(with_candidate(sides, Candidate("rubbish", rubbish)), repository)
    assert "cannot be opened as a model" in str(revision.manifest.build["left_out.rubbish"])
    assert "/.staging-" not in str(revision.manifest.build["left_out.rubbish"])


def test_an_export_that_differs_from_its_original_is_left_out(sides: FamilySpec, repository: Repository) -> None:
    """Parity is checked: a graph of the recipe `export` whose logits are not the original's does not get in."""

    def exported(path: Path) -> Artifact:
        [exact, _] = sides.build(Any, Any)  # type: ignore[arg-type]  # this spec looks at neither
        return replace(exact.make(path), recipe="export")

    def other(feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return np.zeros((len(feeds["point"]), 2), dtype=np.float32)

    revision = build(with_candidate(sides, Candidate("wrong", exported, reference=other)), repository)
    assert "logits differ by" in str(revision.manifest.build["left_out.wrong"])


def test_an_essential_candidate_stops_the_build(sides: FamilySpec, repository: Repository) -> None:
    """The build fails with one line that names the variant, and the repository has no new revision."""
    with pytest.raises(BuildError, match=r"^sides: variant broken cannot be made: ValueError: no$"):
        build(with_candidate(sides, failing(ValueError("no"), essential=True)), repository)
    assert () == repository.families()


def test_an_interrupt_leaves_nothing_half(sides: FamilySpec, repository: Repository) -> None:
    """After Ctrl-C the revision before is active and whole, and no staging folder is left."""
    before = build(sides, repository)
    with pytest.raises(KeyboardInterrupt):
        build(with_candidate(sides, failing(KeyboardInterrupt())), repository)
    assert before.manifest.revision == repository.active("sides")
    assert {"ACTIVE", before.manifest.revision} == {path.name for path in (repository.root / "sides").iterdir()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("FAMILY = 3", "has no FAMILY = FamilySpec"),
        ("import nowhere", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_spec_that_cannot_be_loaded_says_why(content: str | None, message: str, tmp_path: Path) -> None:
    """A missing file, one without a spec and one that fails on import each give a line that says so."""
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BuildError, match=message):
        load_family(str(path))


def test_an_unknown_family_names_the_known() -> None:
    """A name that is neither built in nor a file is answered with what there is."""
    with pytest.raises(BuildError, match=r"'sentimant' is not a family: .*digits, sentiment"):
        load_family("sentimant")


def variant(name: str, quality: float, size_bytes: int, invariant: bool = True) -> VariantManifest:
    fields = dict.fromkeys(("value", "precision", "recall", "f1"), quality)
    return VariantManifest.model_validate(
        {
            "name": name,
            "recipe": "none",
            "lineage": (),
            "model_file": f"{name}/model.onnx",
            "calibration_file": f"{name}/calibration.npz",
            "quality": {**fields, "standard_error": 0.01, "samples": 1000},
            "invariance": {
                "invariant": invariant,
                "label_flips": 0.0,
                "max_probability_delta": 0.0,
                "compared_rows": 1,
            },
            "parameters": 1,
            "size_bytes": size_bytes,
            "on_frontier": False,
            "load_by_default": False,
        }
    )


def right(rows: int) -> NDArray[np.bool_]:
    """Of 1000 rows the first are right."""
    return np.arange(1000) < rows


def test_accuracy_within_the_noise_is_not_worth_its_price() -> None:
    """On the frontier by one row of a thousand, but slower and larger: kept on disk; a clear gain is loaded."""
    variants = [variant("small", 0.800, 10), variant("fp32", 0.801, 40), variant("deep", 0.85, 80)]
    latency_s = {"small": 0.001, "fp32": 0.003, "deep": 0.005}
    correct = {"small": right(800), "fp32": right(801), "deep": right(850)}
    chosen = select(variants, latency_s, correct)
    assert [True, True, True] == [one.on_frontier for one in chosen]
    assert [True, False, True] == [one.load_by_default for one in chosen]
    assert "no more than one standard error better than small, which is faster and smaller" == chosen[1].notes


def test_a_variant_that_depends_on_its_batch_does_not_compete() -> None:
    """It neither is on the frontier nor keeps another off it, unless there is no other."""
    variants = [variant("dynamic", 0.9, 10, invariant=False), variant("rowwise", 0.89, 11)]
    latency_s = {"dynamic": 0.001, "rowwise": 0.002}
    correct = {"dynamic": right(900), "rowwise": right(890)}
    chosen = select(variants, latency_s, correct)
    assert [(False, False), (True, True)] == [(one.on_frontier, one.load_by_default) for one in chosen]
    [alone] = select(variants[:1], latency_s, correct)
    assert alone.load_by_default


def test_paired_noise_counts_only_rows_that_differ() -> None:
    """Ten rows of a thousand gained and none lost is one point, with a standard error of a third of that."""
    difference, error = paired_difference(right(810), right(800))
    assert pytest.approx((0.01, 10**0.5 / 1000)) == (difference, error)


class Recorder:
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def show(self, step: Step) -> None:
        self.steps.append(step)


def test_remaining_time_follows_the_pace_so_far() -> None:
    """A first stage that took twice its plan doubles the estimate of the rest; a stage under way speaks for itself."""
    now_s = [0.0]
    recorder: Any = Recorder()
    progress = BuildProgress({"a": 10.0, "b": 20.0, "c": 10.0}, recorder, clock=lambda: now_s[0])
    progress.begin("a")
    now_s[0] = 20.0
    progress.begin("b")
    now_s[0] = 30.0
    progress.advance(0.5)
    progress.end()
    assert {"a": 20.0, "b": 10.0} == progress.seconds
    assert recorder.steps == [
        Step("a", 0.0, 0.0, 40.0),
        Step("b", 0.25, 20.0, 60.0),
        Step("b", 0.5, 30.0, 10.0 + 20.0),
    ]


def test_lines_are_written_at_stages_and_tenths() -> None:
    """Outside a terminal, a hundred small steps make eleven lines, not a hundred."""
    output = io.StringIO()
    display = LineDisplay("building x", output)
    for percent in range(101):
        display.show(Step("train", percent / 100, percent, 100.0 - percent))
    lines = output.getvalue().splitlines()
    assert 11 == len(lines)
    assert "building x: train, 50% done, 50 s gone, about 50 s left" in lines
    assert "2 min 05 s" == duration(125.2)


def test_a_cached_source_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive with the pinned hash is taken from the cache; one with another hash is not."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    content = b"an archive"
    requirements = tmp_path / "sources.txt"
    requirements.write_text(f"# why\nthing==1.0 \\\n    --hash=sha256:{hashlib.sha256(content).hexdigest()}\n")
    archive = tmp_path / "sources" / "thing-1.0.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(content)
    assert archive == fetch("thing", tmp_path, requirements)
    archive.write_bytes(b"another archive")
    with pytest.raises(BuildError):
        fetch("thing", tmp_path, requirements)


def test_a_source_that_cannot_be_had_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network every equivalent package is tried, and the error names each and asks the question to ask."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    requirements = tmp_path / "sources.txt"
    requirements.write_text("".join(f"{name}==1.0 --hash=sha256:{'0' * 64}\n" for name in ("one", "two")))
    with pytest.raises(BuildError, match=r"^one: pip cannot .*is there a network\?; two: pip cannot [^\n]*network\?$"):
        fetch_first(["one", "two"], tmp_path, requirements)


def test_an_unpinned_source_is_refused(tmp_path: Path) -> None:
    """A package without a hash in the requirements is never downloaded."""
    requirements = tmp_path / "sources.txt"
    requirements.write_text("thing==1.0\n")
    with pytest.raises(BuildError, match="does not pin thing with a hash"):
        fetch("thing", tmp_path, requirements)


def test_weights_are_kept_until_what_they_depend_on_changes(tmp_path: Path) -> None:
    """The same key trains once; another key, or a damaged file, trains again."""
    trained: list[str] = []

    def train() -> dict[str, NDArray[np.float32]]:
        trained.append("once")
        return {"w": np.full(3, len(trained), dtype=np.float32)}

    path = tmp_path / "weights" / "x.safetensors"
    key = content_key("seed 0", b"data")
    values = [kept_weights(path, key, train)["w"][0] for _ in range(2)]
    values.append(kept_weights(path, content_key("seed 0", b"other data"), train)["w"][0])
    path.write_bytes(b"damaged")
    values.append(kept_weights(path, key, train)["w"][0])
    assert [1, 1, 2, 3] == values
    assert [path] == list(path.parent.iterdir())


def test_keys_tell_parts_apart() -> None:
    """Moving a byte from one part to the next makes another key."""
    assert content_key("ab", "c") != content_key("a", "bc")
