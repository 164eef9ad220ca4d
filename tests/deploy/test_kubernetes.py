"""Manifests: sound by their schemas, and true to the gateway, its image and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dockerfile
import pytest
import yaml

from deploy.kubernetes.generate import FILE, prometheus_rule
from service import __version__
from service.configuration import load_settings
from service.memory import budget_bytes
from service.settings import Settings
from service.supervision import STOP_MARGIN_S
from tests.deploy.image import FILE as CONTAINERFILE
from tests.deploy.manifests import (
    FOLDER,
    Manifest,
    container,
    faults,
    kserve,
    kserve_faults,
    one,
    pod,
    render,
    runtime,
    with_components,
)
from tests.deploy.prometheus import SHIPPED

SUPERVISORS_BYTES = 256 * 1024**2
"""`pareto serve` and BentoML's arbiter take 75 and 113 MB beside the process that serves."""
OVERLAYS = ("cpu", "gpu")
COMPONENTS = (("models-image", "api-keys", "tls", "monitoring"), ("hpa",), ("keda",), ("grpc",), ("tls", "grpc"))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(FOLDER / "overlays" / request.param)


@pytest.fixture(scope="module")
def base() -> list[Manifest]:
    return render(FOLDER / "base")


def image_says() -> dict[str, Any]:
    """Of the image's last stage: the variables, and the last of every other instruction."""
    said: dict[str, Any] = {}
    for instruction in dockerfile.parse_file(str(CONTAINERFILE)):
        said[instruction.cmd.upper()] = instruction.value
    pairs = said["ENV"]
    return {**said, "ENV": dict(zip(pairs[::2], pairs[1::2], strict=True))}


def settings_of(found: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """What the gateway makes of a container's variables, over those of the image."""
    variables = {variable["name"]: variable["value"] for variable in found["env"]}
    for name, value in {**image_says()["ENV"], **variables}.items():
        if name.startswith("PARETO_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return load_settings()


def test_overlays_are_sound(overlay: list[Manifest]) -> None:
    """Every object is what its kind's schema knows, and nothing else, in the oldest and the newest Kubernetes."""
    assert [] == list(faults(overlay))
    kinds = {manifest["kind"] for manifest in overlay}
    assert {"Deployment", "Service", "PodMonitor", "PrometheusRule", "PodDisruptionBudget", "NetworkPolicy"} <= kinds
    assert {"pareto"} == {manifest["metadata"].get("namespace", "pareto") for manifest in overlay}


@pytest.mark.parametrize("components", COMPONENTS, ids="+".join)
def test_components_are_sound(components: tuple[str, ...], tmp_path: Path) -> None:
    """Each fits onto the base alone."""
    assert [] == list(faults(with_components(tmp_path, *components)))


def test_faults_would_be_found(tmp_path: Path) -> None:
    """A misspelt field of each sort of schema is named, so that the tests above say something."""
    manifests = with_components(tmp_path, "monitoring", "keda")
    one(manifests, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailible"] = 0
    one(manifests, "PodMonitor")["spec"]["podMetricsEndpoint"] = []
    one(manifests, "ScaledObject")["spec"]["maxReplicas"] = 3
    assert {"Deployment", "PodMonitor", "ScaledObject"} == {fault.split("/")[0] for fault in faults(manifests)}
    runtimes = kserve()
    one(runtimes, "ServingRuntime")["spec"]["containers"][0]["readyProbe"] = {}
    assert ["ServingRuntime.spec.containers[0].readyProbe: no field of V1Container"] == kserve_faults(runtimes)


def test_kserve_knows_the_runtime() -> None:
    """Fields and types are those of KServe's own models; the service names runtime and format that are there."""
    manifests = kserve()
    assert [] == kserve_faults(manifests)
    serving, asked = one(manifests, "ServingRuntime"), one(manifests, "InferenceService")["spec"]["predictor"]["model"]
    assert serving["metadata"]["name"] == asked["runtime"]
    assert asked["modelFormat"]["name"] in {known["name"] for known in serving["spec"]["supportedModelFormats"]}
    assert asked["protocolVersion"] in serving["spec"]["protocolVersions"]
    assert "kserve-container" == runtime()["name"]


@pytest.mark.parametrize("where", ["kubernetes", "kserve"])
def test_settings_exist_and_fit_the_pod(
    where: str, base: list[Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Variables are settings; a replica ends by itself before it is killed, and has room beside its models."""
    found = container(base) if where == "kubernetes" else runtime()
    settings = settings_of(found, monkeypatch, tmp_path)
    named = {variable["name"].lower().removeprefix("pareto_") for variable in found["env"]}
    assert named <= settings.model_fields_set
    spec = pod(base) if where == "kubernetes" else one(kserve(), "InferenceService")["spec"]["predictor"]
    ends_s = settings.lame_duck_s + settings.drain_s
    assert spec["terminationGracePeriodSeconds"] > ends_s + max(settings.timeout_s, STOP_MARGIN_S)
    assert settings.timeout_s <= settings.drain_s
    assert settings.lame_duck_s > found["readinessProbe"]["periodSeconds"] * found["readinessProbe"]["failureThreshold"]
    limit = found["resources"]["limits"]["memory"]
    assert "2Gi" == limit == found["resources"]["requests"]["memory"]
    assert settings.memory_budget is not None
    share = float(settings.memory_budget.removesuffix("%")) / 100.0
    assert (1.0 - share) * budget_bytes(f"{limit}B") > SUPERVISORS_BYTES + settings.max_inflight_bytes


def test_settings_of_families_are_read(base: list[Manifest], tmp_path: Path) -> None:
    """The file of the ConfigMap is one that the gateway takes."""
    (text,) = one(base, "ConfigMap")["data"].values()
    (tmp_path / "pareto.toml").write_text(text)
    assert "json" == load_settings(tmp_path / "pareto.toml").log_format


@pytest.mark.parametrize("where", ["kubernetes", "kserve"])
def test_nobody_in_the_pod_may_do_anything(where: str, base: list[Manifest]) -> None:
    """What Kubernetes' profile `restricted` asks for, and a read-only root, without a token of the cluster."""
    spec = pod(base) if where == "kubernetes" else one(kserve(), "InferenceService")["spec"]["predictor"]
    found = container(base) if where == "kubernetes" else runtime()
    own = {**spec.get("securityContext", {}), **found["securityContext"]}
    assert (False, False) == (spec["automountServiceAccountToken"], spec["enableServiceLinks"])
    asked = {name: own[name] for name in ("runAsNonRoot", "allowPrivilegeEscalation", "readOnlyRootFilesystem")}
    assert {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True} == asked
    assert ({"drop": ["ALL"]}, {"type": "RuntimeDefault"}) == (own["capabilities"], own["seccompProfile"])
    assert image_says()["USER"] == (f"{own['runAsUser']}:{own.get('runAsGroup', 65532)}",)


def test_the_pod_fits_the_image(base: list[Manifest]) -> None:
    """It mounts what the image reads and writes, asks for its port, and runs its version."""
    said = image_says()
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container(base)["volumeMounts"]}
    written = Path(said["ENV"]["BENTOML_HOME"]).parent
    assert {str(written): False, said["ENV"]["PARETO_MODELS"]: True, said["WORKDIR"][0]: True} == mounts
    (port,) = container(base)["ports"]
    assert said["EXPOSE"] == (str(port["containerPort"]),) == (said["ENV"]["PARETO_PORT"],)
    for name in OVERLAYS:
        assert container(render(FOLDER / "overlays" / name))["image"].split(":")[1].removesuffix("-gpu") == __version__
    assert runtime()["image"].split(":")[1] == __version__


def test_who_names_the_pods_finds_them(overlay: list[Manifest]) -> None:
    """Selectors match their labels, ports their port's name, autoscalers the Deployment, which names no number."""
    deployment = one(overlay, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (port,) = container(overlay)["ports"]
    selectors = [
        one(overlay, "Service")["spec"]["selector"],
        one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        one(overlay, "PodMonitor")["spec"]["selector"]["matchLabels"],
    ]
    assert [] == [selector for selector in selectors if not selector or not selector.items() <= labels.items()]
    services = {served["name"]: served["targetPort"] for served in one(overlay, "Service")["spec"]["ports"]}
    assert {"http": port["name"], "metrics": port["name"]} == services
    (let_in,) = one(overlay, "NetworkPolicy")["spec"]["ingress"]
    assert [port["name"]] == [allowed["port"] for allowed in let_in["ports"]]
    assert [port["name"]] == [scraped["port"] for scraped in one(overlay, "PodMonitor")["spec"]["podMetricsEndpoints"]]
    scalers = ("HorizontalPodAutoscaler", "ScaledObject")
    (scaler,) = (manifest for manifest in overlay if manifest["kind"] in scalers)
    assert deployment["metadata"]["name"] == scaler["spec"]["scaleTargetRef"]["name"]
    assert "replicas" not in deployment["spec"]


def test_the_rules_are_those_of_deploy_prometheus(overlay: list[Manifest]) -> None:
    """`make manifests` has been run after the last change, and alerts find the job under the name that they ask for."""
    assert prometheus_rule() == FILE.read_text()
    job = one(overlay, "PodMonitor")["spec"]["jobLabel"]
    labels = one(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"]
    (shipped,) = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())["scrape_configs"]
    assert shipped["job_name"] == labels[job]


def test_grpc_is_reached(base: list[Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The setting, the container's port, the Service's and the network policy's are one; clients see every replica."""
    manifests = with_components(tmp_path, "grpc")
    port, http = sorted(container(manifests)["ports"], key=lambda found: str(found["name"]))
    assert settings_of(container(manifests), monkeypatch, tmp_path).grpc_port == port["containerPort"]
    assert container(base)["ports"] == [http]
    (service,) = (found for found in manifests if found["metadata"]["name"] == "pareto-gateway-grpc")
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert ("None", [port["name"]]) == (
        service["spec"]["clusterIP"],
        [served["targetPort"] for served in service["spec"]["ports"]],
    )
    (let_in,) = one(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert {http["name"], port["name"]} == {allowed["port"] for allowed in let_in["ports"]}


def test_secrets_are_mounted_where_they_are_read(
    base: list[Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Settings name files of the Secrets; scrapes have a key of the same Secret, and probes and scrapes speak HTTPS."""
    manifests = with_components(tmp_path, "monitoring", "api-keys", "tls")
    found, volumes = container(manifests), {volume["name"]: volume for volume in pod(manifests)["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in found["volumeMounts"]}
    settings = settings_of(found, monkeypatch, tmp_path)
    (item,) = volumes["keys"]["secret"]["items"]
    assert Path(mounts["keys"], item["path"]) == settings.keys_file
    # Names of the files in every Secret of type kubernetes.io/tls.
    files = (Path(mounts["tls"], "tls.crt"), Path(mounts["tls"], "tls.key"))
    assert files == (settings.ssl_certfile, settings.ssl_keyfile)
    (scraped,) = one(manifests, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert volumes["keys"]["secret"]["secretName"] == scraped["authorization"]["credentials"]["name"]
    probes = {name: probe["httpGet"] for name, probe in found.items() if name.endswith("Probe")}
    assert ({"HTTPS"}, "https") == ({probe["scheme"] for probe in probes.values()}, scraped["scheme"])
    before = {name: probe["httpGet"] for name, probe in container(base).items() if name.endswith("Probe")}
    assert {name: {**probe, "scheme": "HTTPS"} for name, probe in before.items()} == probes


def test_models_come_with_their_image(tmp_path: Path) -> None:
    """An init container fills what the gateway reads, and there is no claim."""
    manifests = with_components(tmp_path, "models-image")
    assert [] == [manifest for manifest in manifests if manifest["kind"] == "PersistentVolumeClaim"]
    (filled,) = pod(manifests)["initContainers"]
    (volume,) = (volume for volume in pod(manifests)["volumes"] if volume["name"] == "models")
    assert {"name", "emptyDir"} == set(volume)
    assert ["models"] == [mount["name"] for mount in filled["volumeMounts"]]
    assert filled["command"][-1] == filled["volumeMounts"][0]["mountPath"]


def test_both_autoscalers_have_the_same_targets() -> None:
    """KEDA and the HPA are alternatives: the same least and most replicas, targets and pace."""
    hpa = one(render(FOLDER / "overlays" / "gpu"), "HorizontalPodAutoscaler")["spec"]
    keda = one(render(FOLDER / "overlays" / "cpu"), "ScaledObject")["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (keda["minReplicaCount"], keda["maxReplicaCount"])
    assert hpa["behavior"] == keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    deficit, queued = hpa["metrics"]
    assert ("300m", "16") == (deficit["external"]["target"]["value"], queued["pods"]["target"]["averageValue"])
    assert ["0.3", "16"] == [trigger["metadata"]["threshold"] for trigger in keda["triggers"]]
    assert [deficit["external"]["target"]["type"], queued["pods"]["target"]["type"]] == [
        trigger["metricType"] for trigger in keda["triggers"]
    ]
