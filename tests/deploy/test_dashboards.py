"""The dashboards' JSON is what the code makes, and panels fit the grid; `test_watched` has their queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.grafana.generate import FOLDER, dashboards

Panel = dict[str, Any]


def panels() -> Iterator[tuple[str, Panel]]:
    for name, text in dashboards().items():
        yield from ((name.removesuffix(".json"), panel) for panel in json.loads(text)["panels"])


def test_the_files_are_what_the_code_makes() -> None:
    """`make dashboards` has been run after the last change, and no file is left of a dashboard that went."""
    assert dashboards() == {path.name: path.read_text() for path in FOLDER.glob("*.json")}


def test_panels_do_not_overlap_and_name_their_source() -> None:
    """Each has a place of its own on the grid of 24 columns, and the data source that is chosen above."""
    for name in dashboards():
        taken: set[tuple[int, int]] = set()
        for board, panel in panels():
            if f"{board}.json" == name:
                at = panel["gridPos"]
                cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
                assert not cells & taken, panel["title"]
                assert max(x for x, _ in cells) < 24
                assert "${datasource}" == panel["datasource"]["uid"]
                taken |= cells


def test_the_provisioning_reads_what_is_there() -> None:
    """Its data source is the type that dashboards ask for."""
    folder = Path(FOLDER).parent / "provisioning"
    assert "type: prometheus" in (folder / "datasources" / "prometheus.yml").read_text()
    assert "/var/lib/grafana/dashboards" in (folder / "dashboards" / "pareto.yml").read_text()
