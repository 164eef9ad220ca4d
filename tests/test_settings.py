"""Settings: their definition, and their sources."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.family import Share
from router.limits import SERVING
from router.words import WhenLate
from service.configuration import load_settings
from service.scoped_settings import FamilySettings, TenantSettings
from service.settings import Settings
from tests.settings_files import written

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
FAMILY_SETTINGS = st.builds(
    FamilySettings,
    slo_ms=st.none() | st.floats(0.1, 1e6),
    timeout_ms=st.none() | st.floats(0.1, 1e6),
    when_late=st.sampled_from(WhenLate),
    load=st.none() | st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    margin=st.none() | st.floats(1, 10),
    stages=st.none() | st.sampled_from(["auto", "on", "off"]),
    weight=st.floats(0.001, 1000),
    guaranteed_share=st.floats(0, 0.3),
    min_accuracy=st.floats(0, 1),
    slo_target=st.floats(0.5, 0.999),
)
TENANT_SETTINGS = st.builds(
    TenantSettings,
    rate=st.none() | st.floats(0.1, 1e6),
    burst=st.none() | st.floats(1, 1e6),
    concurrency=st.none() | st.integers(1, 1000),
    priority=st.none() | st.integers(1, 10),
    sticky_s=st.floats(0, 86400),
    weight=st.floats(0.001, 1000),
    guaranteed_share=st.floats(0, 0.3),
)
SETTINGS = st.builds(
    Settings,
    models=st.just(Path("/models")),
    host=st.sampled_from(["127.0.0.1", "0.0.0.0", "::1"]),
    port=st.integers(1, 65535),
    slots=st.none() | st.integers(1, 64),
    policy=st.sampled_from(["casc", "slack-fraction", "proteus:lazy", "fixed:L1-int8"]),
    stages=st.sampled_from(["auto", "on", "off"]),
    reply_margin_ms=st.floats(0, 1000),
    lame_duck_s=st.floats(0, 15),
    drain_s=st.floats(0, 10),
    margin=st.floats(1, 10),
    tenants=st.lists(NAMES, max_size=3) | st.dictionaries(NAMES, TENANT_SETTINGS, max_size=3),
    switch_interval_s=st.floats(1e-6, 1),
    keys_file=st.none() | st.just(Path("/keys")),
    keyless=st.sampled_from([(), ("metrics",), ("metrics", "page")]),
    cors_origins=st.sampled_from([(), ("*",), ("https://a.example", "http://localhost:8080")]),
    prometheus_url=st.none() | st.sampled_from(["http://prometheus:9090", "https://me:secret@[::1]:9/prefix/"]),
    prometheus_match=st.none() | st.sampled_from(['a="b"', 'a=~"b.*",c!="\\"d"']),
    log_level=st.sampled_from(["debug", "info", "warning", "error"]),
    families=st.dictionaries(NAMES, FAMILY_SETTINGS, max_size=3),
)


pytestmark = pytest.mark.usefixtures("no_settings")


def test_without_any_source_the_defaults_hold() -> None:
    """No file, no variable, no flag: what the definition says."""
    assert Settings() == load_settings()


def test_flags_stand_over_variables_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source overrides the one below it, key by key, also within a family."""
    path = written('port = 1\nmargin = 1.5\nhost = "::1"\n[families.sentiment]\nslo_ms = 10\nmargin = 2\n')
    monkeypatch.setenv("PARETO_PORT", "2")
    monkeypatch.setenv("PARETO_MARGIN", "1.6")
    monkeypatch.setenv("PARETO_FAMILIES__SENTIMENT__SLO_MS", "20")
    settings = load_settings(path, {"port": 3, "host": None})
    family = settings.family("sentiment")
    assert (3, 1.6, "::1", 20.0, 2.0) == (settings.port, settings.margin, settings.host, family.slo_ms, family.margin)


def test_the_file_is_named_or_lies_in_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pareto.toml` is read by itself, `PARETO_CONFIG` names another, an empty one none."""
    Path("pareto.toml").write_text("port = 11", encoding="utf-8")
    Path("other.toml").write_text("port = 12", encoding="utf-8")
    ports = [load_settings().port]
    for named in ("other.toml", ""):
        monkeypatch.setenv("PARETO_CONFIG", named)
        ports.append(load_settings().port)
    assert [11, 12, Settings().port] == ports


@given(SETTINGS)
def test_settings_travel_through_the_environment(settings: Settings) -> None:
    """A process started with `environment()` loads equal settings, whatever file lies about."""
    with mock.patch.dict(os.environ, settings.environment()):
        assert settings == load_settings()


@pytest.mark.parametrize("value", ["0,1", "[0, 1]"])
def test_a_variable_may_hold_a_list_either_way(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """With commas, or as JSON, also in a table."""
    monkeypatch.setenv("PARETO_SLOT_CORES", value)
    assert (0, 1) == load_settings().slot_cores
    monkeypatch.delenv("PARETO_SLOT_CORES")
    monkeypatch.setenv("PARETO_DEVICES__A__CORES", value)
    assert (0, 1) == load_settings().devices["a"].cores


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ('tenants = ["a", "b"]', {}, {"a": {}, "b": {}}),
        ("", {"PARETO_TENANTS": "a, b"}, {"a": {}, "b": {}}),
        ("[tenants.a]\nrate = 2\n[tenants.b]\nconcurrency = 3", {}, {"a": {"rate": 2}, "b": {"concurrency": 3}}),
        ("[tenants.a]\nrate = 2", {"PARETO_TENANTS__A__RATE": "3"}, {"a": {"rate": 3}}),
        ("[tenants.a]\nrate = 2", {"PARETO_TENANTS": '{"a": {"burst": 7}}'}, {"a": {"burst": 7}}),
    ],
    ids=["a list", "a variable", "tables", "one value of a table", "JSON in a variable"],
)
def test_tenants_are_names_or_tables(
    monkeypatch: pytest.MonkeyPatch, text: str, variables: dict[str, str], expected: dict[str, Any]
) -> None:
    """Names alone have no limits."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tenants = load_settings(written(text)).tenants
    assert {name: TenantSettings(**own) for name, own in expected.items()} == tenants


def test_settings_cannot_be_changed() -> None:
    """They are decided once, when a process starts."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]  # the assignment is what must fail


def test_family_settings_fall_back_on_the_gateways() -> None:
    """A family's own margin, timeout, variants and stages win; without them the gateway's hold."""
    own = {"margin": 3, "timeout_ms": 500, "load": "x, y", "stages": "on"}
    settings = Settings.model_validate({"margin": 1.2, "timeout_s": 9, "stages": "off", "families": {"a": own}})
    assert ("on", "off") == (settings.stages_of("a"), settings.stages_of("b"))
    assert (3.0, 0.5, ("x", "y")) == (settings.margin_of("a"), settings.timeout_of("a"), settings.load_of("a"))
    assert (1.2, 9.0, None) == (settings.margin_of("b"), settings.timeout_of("b"), settings.load_of("b"))


@pytest.mark.parametrize(("slots", "threads", "expected"), [(3, 1, 3), (None, 1, 6), (None, 4, 1), (None, 16, 1)])
def test_slots_default_to_the_usable_cores(slots: int | None, threads: int, expected: int) -> None:
    """Cores are shared out among slots of that many threads, and there is always one slot."""
    settings = Settings(slots=slots, threads_per_slot=threads)
    with mock.patch("variants.fingerprint.available_cores", return_value=6.5):
        assert expected == settings.slot_count


def test_shares_are_those_of_the_settings() -> None:
    """By family and by tenant; who is not named has an even share."""
    settings = load_settings(written("[tenants.gold]\nweight = 2\n[families.a]\nguaranteed_share = 0.3\n"))
    assert (Share(1.0, 0.3), Share()) == (settings.share_of("a"), settings.share_of("b"))
    assert {"gold": Share(2.0, 0.0)} == {name: own.share for name, own in settings.tenants.items()}


@pytest.mark.parametrize("budget", ["2GiB", "60%", "1048576"])
def test_a_memory_budget_reaches_another_process(budget: str) -> None:
    """As it was written, with the names of pinned families and whether callers may change what is served."""
    settings = Settings(memory_budget=budget, pinned=("a", "b"), admin=True)
    with mock.patch.dict(os.environ, settings.environment()):
        loaded = load_settings()
    assert (budget, ("a", "b"), True) == (loaded.memory_budget, loaded.pinned, loaded.admin)


def test_simulations_plan_as_the_gateway_does_by_default() -> None:
    """What the simulator takes for a gateway's limits are those of settings in which nothing is set."""
    assert Settings().limits == SERVING
