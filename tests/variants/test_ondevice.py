"""Files for devices: cut, padded, checked before they replace anything, and recorded; converters are stood in for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import cli
from tests.variants.conftest import publish_words
from variants.manifest import EXPORTS_FOLDER
from variants.ondevice import export
from variants.ondevice.export import export_variant
from variants.ondevice.records import TARGETS, Export, Target, read_exports
from variants.porting import litert_file
from variants.porting import tools as porting_tools
from variants.porting.tools import PYTHON, ToolError
from variants.preparation import ATTENTION_MASK, INPUT_IDS, LOGITS
from variants.profiles import load_profile
from variants.profiling import profile_family, save_profile
from variants.recipes.artifact import EXPORT
from variants.report.contents import gather
from variants.report.page import render
from variants.repository import Repository
from variants.revision import RevisionFolder
from variants.session import open_session
from variants.spec import BuildError

Tool = Callable[[str, Mapping[str, Any]], Any]


@pytest.fixture
def folder(repository: Repository, words_fields: dict[str, Any]) -> RevisionFolder:
    """A text family of one float variant."""
    words_fields["variants"][0]["recipe"] = EXPORT
    return publish_words(repository, words_fields)


class Tools:
    """In place of the converters: a file is a note of who made it; answers are onnxruntime's, each times `sign`."""

    def __init__(self, graph: Path) -> None:
        self.graph = graph
        self.sign = 1.0
        self.made = b"first"
        self.feeds: dict[str, Any] = {}
        self.fails = ""

    def run(self, module: str, order: Mapping[str, Any]) -> Any:
        if self.fails and self.fails in module:
            raise ToolError("it cannot")
        if not module.endswith("measure_tool"):
            Path(order["target"]).write_bytes(self.made)
            return {"tools": "by hand 1.0"}
        assert Path(order["file"]).is_file()
        with np.load(order["feeds"]) as archive:
            self.feeds = {name: archive[name] for name in archive.files}
        np.save(order["logits"], self.sign * open_session(self.graph).run(self.feeds)[LOGITS])
        return {"seconds": [0.001] * len(self.feeds[INPUT_IDS]), "load_s": 0.1, "memory_bytes": 7}


@pytest.fixture
def tools(folder: RevisionFolder, monkeypatch: pytest.MonkeyPatch) -> Tools:
    tools = Tools(folder.file(folder.manifest.variants[0].model_file))
    monkeypatch.setattr(export, "run_tool", tools.run)
    monkeypatch.setattr(litert_file, "run_tool", tools.run)
    monkeypatch.setattr(porting_tools, "PYTHON", Path(sys.executable))
    return tools


def exported(folder: RevisionFolder, target: Target = "litert", tokens: int | None = None) -> Export:
    return export_variant(folder, folder.manifest.variants[0], target, tokens=tokens)


def left_in(folder: RevisionFolder) -> list[str]:
    return sorted(path.name for path in (folder.path / EXPORTS_FOLDER).iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_an_export_is_recorded(folder: RevisionFolder, tools: Tools, target: Target) -> None:
    """The file lies beside the revision, its figures in the records, and the revision is as it was."""
    done = exported(folder, target)
    assert (done,) == read_exports(folder)
    assert tools.made == (folder.path / done.file).read_bytes()
    assert (8, 0, 1.0, "by hand 1.0") == (done.tokens, done.cut_rows, done.p_value, done.tools)
    assert (0.0, 0.0) == (done.parity.label_flips, done.difference)
    assert {} == folder.verify()


def test_rows_are_padded_and_cut(folder: RevisionFolder, tools: Tools) -> None:
    """Each row has so many tokens: longer ones keep their first and last, shorter ones end with masked zeros."""
    samples = folder.samples()
    done = exported(folder, tokens=4)
    ids, mask = tools.feeds[INPUT_IDS], tools.feeds[ATTENTION_MASK]
    assert (len(samples["label"]), 4) == ids.shape == mask.shape
    assert 0 == ids[mask == 0].sum()
    last = mask.sum(axis=1) - 1
    assert {3} == set(ids[np.arange(len(ids)), last].tolist())
    assert 0 < done.cut_rows < done.rows


def test_an_export_that_fails_leaves_the_older_one(folder: RevisionFolder, tools: Tools) -> None:
    """Other answers, and tools that fail at either step: file and records stay, and nothing else is left."""
    done = exported(folder)
    before = left_in(folder)
    tools.made, tools.sign = b"second", -1.0
    with pytest.raises(BuildError, match=r"the file: \d+\.\d % of its labels are not those of sum"):
        exported(folder)
    for step in ("litert_tool", "measure_tool"):
        tools.fails = step
        with pytest.raises(ToolError):
            exported(folder)
    assert (b"first", (done,)) == ((folder.path / done.file).read_bytes(), read_exports(folder))
    assert before == left_in(folder)


def test_an_export_replaces_the_same_one_only(folder: RevisionFolder, tools: Tools) -> None:
    """The same variant, target and tokens; another number of tokens is another file."""
    exported(folder)
    exported(folder, tokens=7)
    tools.made = b"second"
    done = exported(folder)
    assert [7, 8] == [one.tokens for one in read_exports(folder)]
    assert b"second" == (folder.path / done.file).read_bytes()


@pytest.mark.parametrize("tokens", [2, 9])
def test_tokens_that_no_row_has_are_refused(folder: RevisionFolder, tools: Tools, tokens: int) -> None:
    """From the two that every row has and one more to the largest size class."""
    with pytest.raises(BuildError, match=f"{tokens} tokens: expected from 3 to 8"):
        exported(folder, tokens=tokens)


def test_records_that_cannot_be_read_are_none(folder: RevisionFolder, tools: Tools) -> None:
    """A report goes without them, and the next export begins anew."""
    exported(folder)
    (folder.path / EXPORTS_FOLDER / "exports.json").write_text("{")
    assert () == read_exports(folder)
    assert (exported(folder, tokens=7),) == read_exports(folder)


def test_the_report_has_files_for_devices(folder: RevisionFolder, tools: Tools) -> None:
    """With none there is no such section; with one it names tokens, rows that were cut, and who made the file."""
    save_profile(folder, profile_family(folder))
    profile = load_profile(folder)
    assert profile is not None
    assert 'id="devices"' not in render(gather(folder, profile), {})
    done = exported(folder, tokens=4)
    page = render(gather(folder, profile), {})
    assert 'id="devices"' in page
    assert f"<td>{done.cut_rows} of {done.rows}</td>" in page
    assert "by hand 1.0" in page


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--to", "abacus"], 2, "pareto: --to: no target 'abacus', known are litert, executorch"),
        (["--to", "litert", "--variant", "none"], 2, "pareto: words: no variant 'none', known are sum"),
        (["--to", "litert", "--tokens", "99"], 1, "pareto: 99 tokens: expected from 3 to 8"),
    ],
)
def test_what_is_wrong_with_an_export_is_one_line(
    folder: RevisionFolder, tools: Tools, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    """Unknown names and numbers are told with those that are known."""
    models = str(folder.path.parent.parent)
    assert code == cli.run(["export", "words", "--models", models, *arguments])
    assert capsys.readouterr().err.splitlines()[-1].startswith(said)


def test_converters_that_are_missing_are_told_first(
    folder: RevisionFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is opened or measured, and with what installs them."""
    monkeypatch.setattr(porting_tools, "PYTHON", tmp_path / "python")
    assert 1 == cli.run(["export", "words", "--models", str(folder.path.parent.parent), "--to", "executorch"])
    said = "pareto: words: cannot be exported: the converters are not installed: `make export-tools` in a checkout"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)


def test_an_export_says_what_it_measured(
    folder: RevisionFolder, tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the file is, how fast it is, and whether it is as accurate as what is served."""
    assert 0 == cli.run(["export", "words", "--models", str(folder.path.parent.parent), "--to", "litert"])
    said = capsys.readouterr().out
    assert str(folder.path / read_exports(folder)[0].file) in said
    assert "one row of 8 tokens: 1 ms" in said
    assert "no difference beyond noise" in said


@pytest.mark.skipif(not PYTHON.exists(), reason="the converters are not installed: run `make export-tools`")
@pytest.mark.parametrize("target", TARGETS)
def test_the_tools_themselves_export(folder: RevisionFolder, target: Target) -> None:
    """Converted and measured by LiteRT's and ExecuTorch's own: the answers are those of the variant."""
    done = exported(folder, target)
    assert 0.0 == done.parity.label_flips
    assert done.parity.max_relative_error < 1e-5
    assert (folder.path / done.file).stat().st_size == done.size_bytes
