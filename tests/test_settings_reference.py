"""What users read of settings: the example file, and the reference in the docs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from service.configuration import load_settings
from service.device_settings import DeviceSettings
from service.machine_settings import MachineSettings
from service.observability_settings import ObservabilitySettings
from service.planning_settings import PlanningSettings
from service.reference import settings_reference
from service.scoped_settings import FamilySettings, TenantSettings
from service.security_settings import SecuritySettings
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("no_settings")


def test_the_example_file_shows_every_default() -> None:
    """Each setting stands in `pareto.toml`, and what it shows as a default is the default."""
    text = (ROOT / "pareto.toml").read_text(encoding="utf-8")
    shown: dict[str, str] = dict(re.findall(r"^#? ?(\w+) =[ \t]*([^#\n]*)", text, flags=re.MULTILINE))
    tables = set(FamilySettings.model_fields) | set(TenantSettings.model_fields)
    tables |= set(DeviceSettings.model_fields)
    assert set(Settings.model_fields) - {"families", "tenants", "devices"} | tables == set(shown)
    defaults: dict[str, Any] = Settings().model_dump(mode="json")
    commented = {key: tomllib.loads(f"x = {value}")["x"] for key, value in shown.items() if value.strip()}
    top = {key: value for key, value in commented.items() if key not in tables - {"margin"}}
    assert {key: defaults[key] for key in top} == top


def test_the_example_file_loads() -> None:
    """It is what a checkout serves with."""
    assert 50.0 == load_settings(ROOT / "pareto.toml").family("sentiment").slo_ms


def test_the_reference_describes_every_setting() -> None:
    """Each row has a meaning, and the keys are those of the definition."""
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in settings_reference().splitlines()[2:]]
    apart = [*MachineSettings.model_fields, *PlanningSettings.model_fields]
    apart += [*ObservabilitySettings.model_fields, *SecuritySettings.model_fields]
    keys = [key for key in Settings.model_fields if key not in apart] + apart
    own = [f"`{key}`" for key in keys if key != "families"]
    own += [f"`families.NAME.{key}`" for key in FamilySettings.model_fields]
    own += [f"`tenants.NAME.{key}`" for key in TenantSettings.model_fields]
    own += [f"`devices.NAME.{key}`" for key in DeviceSettings.model_fields]
    assert own == [row[0] for row in rows]
    assert [] == [row for row in rows if len(row) != 5 or not row[4].endswith(".")]


def test_the_reference_in_the_docs_is_the_one_that_the_code_makes() -> None:
    """`docs/settings.md` ends with the table that `settings_reference` makes of the settings themselves."""
    document = (Path(__file__).parent.parent / "docs" / "settings.md").read_text()
    assert document.endswith(settings_reference().rstrip() + "\n")
