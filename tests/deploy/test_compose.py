"""The compose file: sound by Compose's own schema, and everything that it names is there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from loadtests.servers import ROOT
from service.configuration import load_settings
from service.supervision import STOP_MARGIN_S
from tests.deploy.prometheus import SHIPPED

FOLDER = ROOT / "deploy" / "compose"
COMPOSE = str(Path(sysconfig.get_path("scripts"), "docker-compose"))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """What Docker Compose itself makes of the file: validated, with all paths absolute."""
    command = [COMPOSE, "-f", str(FOLDER / "compose.yaml"), "config", "--format", "json"]
    read = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert ("", 0) == (read.stderr, read.returncode)
    found: dict[str, Any] = json.loads(read.stdout)
    return found


def binds(project: dict[str, Any], service: str) -> dict[str, str]:
    """Path in the container -> path on this machine, of what is mounted from here."""
    volumes = project["services"][service]["volumes"]
    assert all(volume["read_only"] for volume in volumes if volume["type"] == "bind")
    return {volume["target"]: volume["source"] for volume in volumes if volume["type"] == "bind"}


def test_a_fault_would_be_found(tmp_path: Path) -> None:
    """Compose refuses a key that it does not know, so that the other tests say something."""
    file = tmp_path / "compose.yaml"
    file.write_text((FOLDER / "compose.yaml").read_text().replace("mem_limit:", "memory_limit:"))
    command = [COMPOSE, "-f", str(file), "config", "--quiet"]
    assert "memory_limit" in subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_what_is_mounted_is_there(project: dict[str, Any]) -> None:
    """Every file and folder but the models, which are the user's; the image is built from the container file."""
    found = {**binds(project, "gateway"), **binds(project, "prometheus"), **binds(project, "grafana")}
    assert str(ROOT / "models") == found.pop("/models")
    assert [] == [source for source in found.values() if not Path(source).exists()]
    built = project["services"]["gateway"]["build"]
    assert (ROOT / "deploy" / "container" / "Containerfile") == Path(built["context"], built["dockerfile"])


def test_the_gateway_is_given_settings_that_exist(
    project: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All are read, and leave the time that a drain takes before the container is killed."""
    gateway = project["services"]["gateway"]
    for name, value in gateway["environment"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert {name.lower().removeprefix("pareto_") for name in gateway["environment"]} == settings.model_fields_set
    assert settings.timeout_s <= settings.drain_s
    assert "1m0s" == gateway["stop_grace_period"]
    assert settings.drain_s + STOP_MARGIN_S < 60.0


def test_services_reach_each_other_by_name(project: dict[str, Any]) -> None:
    """Who is scraped, asked and shown are services of the file, at the ports where they listen."""
    scraped = yaml.safe_load(Path(binds(project, "prometheus")["/etc/prometheus/prometheus.yml"]).read_text())
    (job,) = scraped["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    (port,) = project["services"]["gateway"]["ports"]
    assert (["gateway"], port["target"]) == (found["names"], found["port"])
    folder = Path(binds(project, "grafana")["/etc/grafana/provisioning"])
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    asked = project["services"]["gateway"]["environment"]["PARETO_PROMETHEUS_URL"]
    assert source["url"] == asked
    assert urlsplit(asked).hostname in project["services"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "pareto.yml").read_text())["providers"]
    assert provider["options"]["path"] in binds(project, "grafana")


def test_prometheus_has_the_shipped_rules(project: dict[str, Any], tmp_path: Path) -> None:
    """The job is called as alerts expect, the rules are those of deploy/prometheus, and promtool finds no fault."""
    mounted = binds(project, "prometheus")
    own = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    shipped = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    assert shipped["rule_files"] == own["rule_files"]
    assert [job["job_name"] for job in shipped["scrape_configs"]] == [job["job_name"] for job in own["scrape_configs"]]
    for file in own["rule_files"]:
        assert str(SHIPPED / file) == mounted[f"/etc/prometheus/{file}"]
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    for target, source in mounted.items():
        shutil.copy(source, tmp_path / Path(target).name)
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True)
