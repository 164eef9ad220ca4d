"""A built family gets its variants on other runtimes: the same networks, measured like all, and nothing trained."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from service import cli
from service.doctor import examine
from service.settings import Settings
from tests.ported import CHAIN, built, extended
from variants.manifest import MANIFEST_FILE, FamilyManifest
from variants.porting import ports
from variants.porting.extend import usable_runtimes
from variants.porting.ports import wanted_ports
from variants.preparation import LOGITS
from variants.profiles import load_profile
from variants.profiling import profile_family
from variants.report.contents import gather
from variants.report.page import render
from variants.repository import Repository
from variants.revision import RevisionFolder
from variants.runtimes import table
from variants.runtimes.contest import contests, gain
from variants.runtimes.defaults import loaded_by_default
from variants.session import open_file
from variants.spec import BuildError

ROOT = Path(__file__).resolve().parents[2]
RUNTIMES = ("openvino", "torch")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The family, built, and extended once: the first revision is there still."""
    repository = built(tmp_path_factory.mktemp("ports"))
    extended(repository, RUNTIMES)
    return repository


@pytest.fixture
def folder(repository: Repository) -> RevisionFolder:
    return repository.open("points")


def test_a_port_is_one_more_variant(folder: RevisionFolder) -> None:
    """OpenVINO runs all files as they are; torch only float graphs, from files of its own."""
    variants = {variant.name: variant for variant in folder.manifest.variants}
    assert ["float", "other", "float-openvino", "other-openvino", "float-torch"] == list(variants)
    assert {"onnxruntime", "openvino", "torch"} == {variant.runtime for variant in variants.values()}
    assert variants["float"].model_file == variants["float-openvino"].model_file
    assert "float-torch/model.pt2" == variants["float-torch"].model_file
    assert ("by hand", "on torch") == variants["float-torch"].lineage
    assert {} == folder.verify()


def test_parity_is_recorded(folder: RevisionFolder) -> None:
    """Of a float network, logits differ by rounding alone and no label does."""
    for name in ("float-openvino", "other-openvino", "float-torch"):
        parity = folder.manifest.variant(name).parity
        assert parity is not None
        assert (name.split("-")[0], 0.0) == (parity.reference, parity.label_flips)
        assert parity.max_relative_error < 1e-5
        assert ports.PARITY_ROWS == parity.compared_rows
    assert folder.manifest.variant("float").parity is None


def test_ports_are_measured_like_all(folder: RevisionFolder) -> None:
    """Quality on the same rows, batch invariance, calibration and scores of their own, and a place in the profile."""
    profile = load_profile(folder)
    assert profile is not None
    assert {variant.name for variant in folder.manifest.variants} == set(profile.variants)
    base = folder.manifest.variant("float")
    for name in ("float-openvino", "float-torch"):
        port = folder.manifest.variant(name)
        assert (base.quality, base.macs) == (port.quality, port.macs)
        assert port.invariance.invariant
        assert len(folder.calibration("float").label) == len(folder.calibration(name).label)


def test_a_port_gives_the_logits_of_its_file(folder: RevisionFolder) -> None:
    """What is opened by the manifest's words answers as the original does."""
    rows = {"x": np.random.default_rng(5).standard_normal((7, 4)).astype(np.float32)}
    wanted = open_file(folder, folder.manifest.variant("float").model).run(rows)[LOGITS]
    for name in ("float-openvino", "float-torch"):
        given = open_file(folder, folder.manifest.variant(name).model).run(rows)[LOGITS]
        np.testing.assert_allclose(wanted, given, atol=1e-5)


def test_the_report_says_which_runtime_wins(folder: RevisionFolder) -> None:
    """A winner for each batch, whoever is fastest in the profile, and each port's difference in quality is a tie."""
    profile = load_profile(folder)
    assert profile is not None
    seconds = {"float": 0.004, "float-openvino": 0.002, "float-torch": 0.008, "other": 0.003, "other-openvino": 0.006}
    timed = {
        name: table.model_copy(update={"median_s": tuple(tuple(seconds[name] for _ in row) for row in table.median_s)})
        for name, table in profile.variants.items()
    }
    report = gather(folder, profile.model_copy(update={"variants": timed}))
    assert ["float", "other"] == [contest.variant for contest in report.ports.contests]
    wins = [{(win.runtime, win.ratio) for win in contest.wins} for contest in report.ports.contests]
    assert [{("openvino", 2.0)}, {("onnxruntime", 1.0)}] == wins
    assert [True] * 3 == [line.quality is not None and line.quality.tied for line in report.ports.lines]
    page = render(report, {})
    assert 'id="runtimes"' in page
    assert "float-openvino" in page


def test_what_a_runtime_gained_is_said(folder: RevisionFolder) -> None:
    """In how many cases it was faster, of those that were timed; nothing of one that was not."""
    profile = load_profile(folder)
    assert profile is not None
    cells = sum(len(contest.ratios["openvino"]) for contest in contests(folder.manifest, profile))
    assert gain("openvino", folder.manifest, profile).startswith("points: faster in ")
    assert f"of {cells} cases" in gain("openvino", folder.manifest, profile)
    assert gain("litert", folder.manifest, profile) == ""


def test_what_is_ported_is_not_ported_again(repository: Repository) -> None:
    """The active revision stays what it is; one more runtime would add to it."""
    before = repository.active("points")
    assert before == extended(repository, RUNTIMES).manifest.revision
    assert ("torch",) == usable_runtimes(["torch", "onnxruntime", "torch"])


def test_the_revision_before_is_served_as_before(repository: Repository) -> None:
    """Its manifest is without the words for ports, as those of older versions are."""
    second = repository.active("points")
    # By name and not by order: two revisions of one second are sorted by their random ends.
    (first,) = set(repository.revisions("points")) - {second}
    fields = json.loads((repository.open("points", first).path / MANIFEST_FILE).read_text())
    for variant in fields["variants"]:
        assert ("onnxruntime", None) == (variant.pop("runtime"), variant.pop("parity"))
    older = FamilyManifest.model_validate(fields)
    assert repository.open("points", first).manifest == older
    assert {} == repository.open("points", first).verify()


def test_only_some_variants_are_ported(tmp_path: Path) -> None:
    """Those that are named; one that is not there is said with those that are."""
    repository = built(tmp_path)
    with pytest.raises(BuildError, match="no variant 'none' on onnxruntime to port, known are float, other"):
        extended(repository, ["openvino"], ["none"])
    folder = extended(repository, ["openvino"], ["other"])
    assert ["float", "other", "other-openvino"] == [variant.name for variant in folder.manifest.variants]


def test_a_second_port_of_a_chain_shares_its_stages(tmp_path: Path) -> None:
    """Ported one after the other, both exits of a chain go through the same first stage."""
    repository = built(tmp_path, CHAIN)
    extended(repository, ["openvino"], ["near"], spec=CHAIN)
    manifest = extended(repository, ["openvino"], ["far"], spec=CHAIN).manifest
    assert ("layer-0-openvino",) == manifest.variant("near-openvino").stages
    assert ("layer-0-openvino", "layer-1-openvino") == manifest.variant("far-openvino").stages
    assert ["layer-0", "layer-1", "layer-0-openvino", "layer-1-openvino"] == [one.name for one in manifest.stages]


def test_what_can_never_be_ported_is_refused(repository: Repository) -> None:
    """A quantized variant that is named for a runtime of float ones: an error, not nothing to do."""
    variants = repository.open("points").manifest.variants
    with pytest.raises(BuildError, match="other cannot be ported to torch, only float variants can: float"):
        wanted_ports(variants, ["torch"], ["other"])
    with pytest.raises(BuildError, match="other cannot be ported to torch, only float variants can: there are none"):
        wanted_ports([variant for variant in variants if variant.name == "other"], ["torch"])
    assert [] == wanted_ports(variants, ["torch", "openvino"], ["other"])


def test_a_missing_runtime_is_left_out_of_profiles(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All others are measured and the lack is said; nothing is ported beside what cannot be measured."""
    monkeypatch.setattr(table, "find_spec", lambda name: None if name == "torch" else name)
    assert 0 == cli.run(["profile", "points", "--models", str(repository.root)])
    assert "points: float-torch is left out: the runtime torch is not installed" in capsys.readouterr().err
    measured = profile_family(repository.open("points")).variants
    assert ["float", "other", "float-openvino", "other-openvino"] == list(measured)
    with pytest.raises(BuildError, match="points: float-torch cannot be measured beside the others: the runtime torch"):
        extended(repository, ["openvino"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--only", "float"], 2, "pareto: --only: names what --runtimes ports; give --runtimes, too"),
        (["digits", "vision", "--runtimes", "openvino", "--only", "a"], 2, "pareto: --only: names the variants of one"),
        (["digits", "--runtimes", "abacus"], 1, "pareto: no runtime 'abacus', known are onnxruntime, "),
        (
            ["digits", "--runtimes", "openvino", "litert"],
            2,
            "pareto: 'litert' is a runtime: pareto build FAMILY --runtimes litert, several ",
        ),
        (["digits", "nobody"], 1, "pareto: 'nobody' is not a family: give the path of a .py file or one of digits, "),
        (["points", "--runtimes", "openvino"], 1, "pareto: 'points' was not built of a name: what was imported is "),
    ],
)
def test_wrong_usage_is_refused_before_anything_runs(
    repository: Repository, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    """One line, and no revision more."""
    before = repository.families(), repository.revisions("points")
    assert code == cli.run(["build", "--models", str(repository.root), *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert before == (repository.families(), repository.revisions("points"))


def test_doctor_says_what_runtimes_gain(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """One finding for each runtime but onnxruntime; one whose package nobody can name is no error."""
    monkeypatch.setattr(table, "version", partial(unnamed, "openvino"))
    found = [finding.text for finding in examine(Settings(models=repository.root)) if finding.subject == "runtime"]
    assert len(table.RUNTIMES) - 1 == len(found)
    assert any(text.startswith("openvino (openvino ?): points: faster in ") for text in found)


def unnamed(unknown: str, package: str) -> str:
    if package == unknown:
        raise PackageNotFoundError(package)
    return "1"


def test_where_a_runtime_is_missing_the_original_is_loaded(
    folder: RevisionFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revision that loads a port by default is served on a machine without its runtime, too."""
    ported = tuple(
        variant.model_copy(update={"load_by_default": variant.name == "float-openvino"})
        for variant in folder.manifest.variants
    )
    manifest = folder.manifest.model_copy(update={"variants": ported})
    assert ["float-openvino"] == [variant.name for variant in loaded_by_default(manifest)]
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    assert ["float"] == [variant.name for variant in loaded_by_default(manifest)]


def test_serving_imports_no_runtime_that_it_does_not_use(repository: Repository) -> None:
    """A family with ports, of which none is loaded, is loaded without OpenVINO, LiteRT and torch."""
    program = (
        "import sys; from pathlib import Path; from service.loading import load_family; "
        "from variants.repository import Repository; from variants.session import SessionOptions; "
        f"load_family(Repository(Path({str(repository.root)!r})), 'points', SessionOptions(), ['float']); "
        "print(sorted({'openvino', 'ai_edge_litert', 'torch'} & {name.split('.')[0] for name in sys.modules}))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "[]" == ran.stdout.strip()
