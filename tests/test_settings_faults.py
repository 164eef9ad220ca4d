"""What is said of settings with a fault: the key, where it stands, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.policies import POLICIES
from tests.settings_files import faults, written

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("prot = 1", "prot (settings.toml): no setting has this name, did you mean port?"),
        ("port = 'x'", "port (settings.toml): expected a whole number, got 'x'"),
        ("port = 70000", "port (settings.toml): expected at most 65535, got 70000"),
        ("margin = nan", "margin (settings.toml): expected at most 10, got nan"),
        ("slots = 0", "slots (settings.toml): expected at least 1, got 0"),
        ("families = 3", "families (settings.toml): expected a table, got 3"),
        ("tenants = 3", "tenants (settings.toml): expected a table, got 3"),
        ("[tenants.a]\nrate = 0", "tenants.a.rate (settings.toml): expected more than 0, got 0"),
        (
            "[tenants.a]\nrates = 1",
            "tenants.a.rates (settings.toml): no setting has this name, did you mean tenants.a.rate?",
        ),
        ("[families.a]\nslo_ms = -1", "families.a.slo_ms (settings.toml): expected more than 0, got -1"),
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
            "lame_duck_s (settings.toml): 20 s and drain_s, 10 s, are more than 25 s: then the replica is killed",
        ),
        (
            "isolation = 'processes'\nmemory_budget = '1GiB'\nthreads_per_slot = 2",
            (
                "isolation (settings.toml): batches in `processes` run with one thread under a memory_budget; set "
                "threads_per_slot to 1"
            ),
        ),
        (
            "prometheus_short_s = 7200",
            "prometheus_short_s (settings.toml): 7200 is longer than prometheus_long_s",
        ),
        (
            "[families.a]\nslo_target = 1",
            "families.a.slo_target (settings.toml): expected at most 0.99999, got 1",
        ),
        (
            "cors_origins = ['example.org']",
            (
                "cors_origins.0 (settings.toml): expected https://app.example.org (scheme, host, perhaps a port, in "
                "lower case) or *, got 'example.org'"
            ),
        ),
        ("page = 'maybe'", "page (settings.toml): expected true or false, got 'maybe'"),
        ("host = ''", "host (settings.toml): expected some text, got ''"),
        ("slot_cores = 1", "slot_cores (settings.toml): expected a list, got 1"),
        ("[families.a]\nload = []", "families.a.load (settings.toml): expected a list of at least 1, got []"),
        (
            "[devices.A]\nthreads = 1",
            "devices.A (settings.toml): expected at most 32 small letters, digits, `-` and `_`",
        ),
        ("keyless = ['all']", "keyless.0 (settings.toml): expected 'metrics' or 'page', got 'all'"),
        ("admin_port = 3000", "admin_port (settings.toml): 3000 is `port` already; choose another one"),
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
        "families.a.slo_ms (PARETO_FAMILIES__A__SLO_MS): expected more than 0, got '0'",
        "port (--port): expected at least 1, got 0",
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
    ("name", "value", "said"),
    [
        ("FAMILIES", "{", "PARETO_FAMILIES: expected a table as JSON, got '{'"),
        ("FAMILIES", "[]", "families (PARETO_FAMILIES): expected a table as JSON, got []"),
        ("FAMILIES__A", "{", "families.a (PARETO_FAMILIES__A): expected a table as JSON, got '{'"),
        ("DEVICES", "{", "PARETO_DEVICES: expected a table as JSON, got '{'"),
        ("TENANTS", "{", "tenants (PARETO_TENANTS): expected names or a table as JSON, got '{'"),
        (
            "SLOT_CORES",
            "0-1",
            "slot_cores (PARETO_SLOT_CORES): expected a list of processor cores, `0,1` in a variable, ",
        ),
        ("SLOT_CORES", "[0", "slot_cores (PARETO_SLOT_CORES): expected `a,b`, or a list as JSON, got '[0' ("),
        ("DEVICES__A__CORES", "x", "devices.a.cores (PARETO_DEVICES__A__CORES): expected a list of processor cores, "),
    ],
)
def test_what_a_variable_is_to_be_is_said_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """In one line, also where it does not parse."""
    monkeypatch.setenv(f"PARETO_{name}", value)
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
    ("text", "told"),
    [
        ("[families.a]\nguaranteed_share = 0.7\n[families.b]\nguaranteed_share = 0.4\n", "add up to 1.1"),
        (
            "[tenants.a]\nguaranteed_share = 0.7\n[tenants.default]\nguaranteed_share = 0.4\n",
            "tenants (settings.toml): guaranteed shares",
        ),
        ("[tenants.gold]\nwieght = 2\n", "did you mean tenants.gold.weight?"),
    ],
)
def test_shares_that_cannot_be_given_are_told(text: str, told: str) -> None:
    """More than the whole machine, misspelt keys: one line that says so."""
    (fault,) = faults(written(text))
    assert told in fault
