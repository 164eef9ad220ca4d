"""Settings: their definition, their sources, and what is said of a fault."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.family import Share
from router.limits import SERVING
from router.policies import POLICIES
from router.words import WhenLate
from service.configuration import SOURCES, SettingsError, load_settings, reload_settings, sources
from service.device_settings import DeviceSettings
from service.observability_settings import ObservabilitySettings
from service.reference import settings_reference
from service.scoped_settings import FamilySettings, TenantSettings
from service.security_settings import SecuritySettings
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
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


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours and no settings file in the working directory."""
    for name in os.environ:
        if name.upper().startswith("PARETO_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def written(text: str) -> Path:
    path = Path("settings.toml")
    path.write_text(text, encoding="utf-8")
    return path


def faults(config: Path | None = None, **flags: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(config, flags)
    return str(caught.value).splitlines()


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


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("prot = 1", "prot (settings.toml): no setting has this name, did you mean port?"),
        ("port = 'x'", "port (settings.toml): expected a whole number, got 'x'"),
        ("port = 70000", "port (settings.toml): expected less than or equal to 65535, got 70000"),
        ("margin = nan", "margin (settings.toml): expected less than or equal to 10, got nan"),
        ("slots = 0", "slots (settings.toml): expected greater than or equal to 1, got 0"),
        ("families = 3", "families (settings.toml): expected a table, got 3"),
        ("tenants = 3", "tenants (settings.toml): expected a table, got 3"),
        ("[tenants.a]\nrate = 0", "tenants.a.rate (settings.toml): expected greater than 0, got 0"),
        (
            "[tenants.a]\nrates = 1",
            "tenants.a.rates (settings.toml): no setting has this name, did you mean tenants.a.rate?",
        ),
        ("[families.a]\nslo_ms = -1", "families.a.slo_ms (settings.toml): expected greater than 0, got -1"),
        (
            "[families.a]\nslo = 1",
            "families.a.slo (settings.toml): no setting has this name, did you mean families.a.slo_ms?",
        ),
        (
            "[families.a]\nwhen_late = 'drop'",
            "families.a.when_late (settings.toml): expected 'shed' or 'serve', got 'drop'",
        ),
        (
            "prometheus_url = 'me:secret@prometheus:9090'",
            "prometheus_url (settings.toml): expected http://host:port or https://host:port, with or without a path",
        ),
        (
            "prometheus_match = 'job=gateway'",
            (
                "prometheus_match (settings.toml): expected label matchers as in "
                """namespace="prod",job="gateway", got 'job=gateway'"""
            ),
        ),
        (
            "lame_duck_s = 20",
            "lame_duck_s: 20 s and drain_s, 10 s, are more than 25 s: then the replica is killed",
        ),
        (
            "isolation = 'processes'\nmemory_budget = '1GiB'",
            "isolation: `processes` keep no memory_budget yet; leave one of the two out",
        ),
        (
            "prometheus_short_s = 7200",
            "prometheus_short_s: 7200 is longer than prometheus_long_s",
        ),
        (
            "[families.a]\nslo_target = 1",
            "families.a.slo_target (settings.toml): expected less than or equal to 0.99999, got 1",
        ),
        (
            "cors_origins = ['example.org']",
            (
                "cors_origins.0 (settings.toml): expected https://app.example.org (scheme, host, perhaps a port, in "
                "lower case) or *, got 'example.org'"
            ),
        ),
        ("keyless = ['all']", "keyless.0 (settings.toml): expected 'metrics' or 'page', got 'all'"),
        ("admin_port = 3000", "admin_port: 3000 is `port` already; choose another one"),
        (
            "policy = 'best'",
            "policy (settings.toml): unknown policy 'best', expected one of " + ", ".join(POLICIES),
        ),
    ],
)
def test_a_fault_in_the_file_names_key_and_file(text: str, fault: str) -> None:
    """One line: the key, the file, what was expected and what came."""
    assert [fault] == faults(written(text))


def test_a_fault_in_a_variable_or_flag_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names where the value came from, the topmost source of the key."""
    monkeypatch.setenv("PARETO_BACKLOG", "many")
    monkeypatch.setenv("PARETO_FAMILIES__A__SLO_MS", "0")
    expected = [
        "backlog (PARETO_BACKLOG): expected a whole number, got 'many'",
        "families.a.slo_ms (PARETO_FAMILIES__A__SLO_MS): expected greater than 0, got '0'",
        "port (--port): expected greater than or equal to 1, got 0",
    ]
    assert expected == sorted(faults(written("port = 5\nbacklog = 5"), port=0))


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that would do nothing is a fault, but for those that Kubernetes makes of a Service's name."""
    monkeypatch.setenv("PARETO_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("PARETO_GATEWAY_PORT_80_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("PARETO_CACHE", "/cache")
    monkeypatch.setenv("PARETO_SLOT", "2")
    assert ["PARETO_SLOT: no setting has this name, did you mean PARETO_SLOTS?"] == faults()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "PARETO_FAMILIES: expected a table as JSON, got '{'"),
        ("[]", "families (PARETO_FAMILIES): expected a table"),
    ],
)
def test_families_in_one_variable_are_json(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    """What does not parse is said in one line, too."""
    monkeypatch.setenv("PARETO_FAMILIES", value)
    (fault,) = faults()
    assert fault.startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"port =", "not valid TOML"), (b"\xff", "not UTF-8 at byte 0"), (None, "cannot read the settings file")],
)
def test_an_unreadable_file_is_one_line(content: bytes | None, said: str) -> None:
    """A missing, binary or malformed file is named."""
    path = Path("broken.toml")
    if content is not None:
        path.write_bytes(content)
    (fault,) = faults(path)
    assert fault.startswith(f"broken.toml: {said}")


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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[families.a]\nguaranteed_share = 0.7\n[families.b]\nguaranteed_share = 0.4\n", "add up to 1.1"),
        (
            "[tenants.a]\nguaranteed_share = 0.7\n[tenants.default]\nguaranteed_share = 0.4\n",
            "tenants: guaranteed shares",
        ),
        ("[tenants.gold]\nwieght = 2\n", "did you mean tenants.gold.weight?"),
    ],
)
def test_shares_that_cannot_be_given_are_told(text: str, told: str) -> None:
    """More than the whole machine, misspelt keys: one line that says so."""
    (fault,) = faults(written(text))
    assert told in fault


def test_shares_are_those_of_the_settings() -> None:
    """By family and by tenant; who is not named has an even share."""
    settings = load_settings(written("[tenants.gold]\nweight = 2\n[families.a]\nguaranteed_share = 0.3\n"))
    assert (Share(1.0, 0.3), Share()) == (settings.share_of("a"), settings.share_of("b"))
    assert {"gold": Share(2.0, 0.0)} == {name: own.share for name, own in settings.tenants.items()}


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
    apart = [*ObservabilitySettings.model_fields, *SecuritySettings.model_fields]
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
        with pytest.raises(SettingsError, match=r"backlog .*greater than or equal to 1, got 0"):
            reload_settings()
    assert ("casc", 6000, ["a", "b"]) == (settings.policy, settings.backlog, list(settings.tenants))
    assert (Path.cwd() / "m", Path.cwd() / "c.json") == (settings.models, settings.comparison)


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
