"""Settings that are read again while a replica serves."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from service.configuration import SOURCES, SettingsError, load_settings, reload_settings, sources

pytestmark = pytest.mark.usefixtures("no_settings")


def test_settings_are_read_again_where_they_came_from(tmp_path: Path) -> None:
    """The server's process finds the file as it is then, with the flags that its command was given still on top."""
    file = tmp_path / "own.toml"
    file.write_text('policy = "fluid"\nbacklog = 5000\nmodels = "m"\n', encoding="utf-8")
    with mock.patch.dict(os.environ, {"PARETO_TENANTS": "a,b"}):
        told = sources(file, {"policy": "casc", "host": None})
    file.write_text('policy = "fluid"\nbacklog = 6000\nmodels = "m"\ncomparison = "c.json"\n', encoding="utf-8")
    with mock.patch.dict(os.environ, {SOURCES: told, "PARETO_CONFIG": ""}):
        settings = reload_settings()
        file.write_text("backlog = 0\n", encoding="utf-8")
        with pytest.raises(SettingsError, match=r"backlog .*at least 1, got 0"):
            reload_settings()
    assert ("casc", 6000, ["a", "b"]) == (settings.policy, settings.backlog, list(settings.tenants))
    assert (Path.cwd() / "m", Path.cwd() / "c.json") == (settings.models, settings.comparison)


def test_a_fault_that_is_read_again_names_where_it_stands(tmp_path: Path) -> None:
    """Flag, variable or file of the command, though the server's process has every setting in a variable."""
    file = tmp_path / "own.toml"
    file.write_text('memory_budget = "1GiB"\n', encoding="utf-8")
    with mock.patch.dict(os.environ, {"PARETO_ADMIN_PORT": "3000"}):
        told = sources(file, {"grpc_port": 3001})
        environment = load_settings(file, {"grpc_port": 3001, "port": 2000}).environment()
    for text, said in (
        ('memory_budget = "60MiX"\n', f"memory_budget ({file}): expected bytes"),
        ("port = 3000\n", "admin_port (PARETO_ADMIN_PORT): 3000 is"),
        ("port = 3001\n", "grpc_port (--grpc-port): 3001 is"),
    ):
        file.write_text(text, encoding="utf-8")
        with mock.patch.dict(os.environ, {**environment, SOURCES: told}), pytest.raises(SettingsError) as error:
            reload_settings()
        assert str(error.value).startswith(said)


def test_settings_that_nobody_changed_are_read_again_as_they_were(tmp_path: Path) -> None:
    """Relative paths and unset ones too: what the server was started with is what it finds in the file."""
    file = tmp_path / "own.toml"
    for text in ('models = "m"\ncomparison = "c.json"\n', "slots = 1\n"):
        file.write_text(text, encoding="utf-8")
        environment = load_settings(file).environment()
        told = sources(file)
        with mock.patch.dict(os.environ, {**environment, SOURCES: told}):
            started, again = load_settings(), reload_settings()
        assert (started.comparison, started.models.absolute()) == (again.comparison, again.models)
