"""Manifests as a cluster would get them: rendered by kubectl, and held against the schemas of their kinds."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from loadtests.servers import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.31", "1.37")
"""Of Kubernetes: the oldest and the newest one that the manifests are for."""
KSERVE = Path(sys.prefix) / "kserve" / "bin" / "python"
_LEAST_KUSTOMIZE = 5
"""Older ones know no components, or render them otherwise."""
_MODELS = {
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
}

Manifest = dict[str, Any]


def kubectl() -> str:
    """The program; skips the test where there is none that renders components."""
    for folder in (Path(sys.prefix) / "bin", None):
        found = shutil.which("kubectl", path=None if folder is None else str(folder))
        if found:
            said = subprocess.run([found, "version", "--client"], capture_output=True, text=True, check=False).stdout
            version = re.search(r"Kustomize Version: v(\d+)", said)
            if version and int(version[1]) >= _LEAST_KUSTOMIZE:
                return found
    pytest.skip("no kubectl of 1.27 or newer: run `make clients`")


def render(kustomization: Path) -> list[Manifest]:
    """The objects of a kustomization. Raises `CalledProcessError`."""
    text = subprocess.run([kubectl(), "kustomize", kustomization], capture_output=True, text=True, check=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def with_components(folder: Path, *components: str, base: str = "base") -> list[Manifest]:
    """The objects of a kustomization, laid into `folder`, of a base or an overlay and components."""
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(FOLDER / base, folder)],
        "components": [os.path.relpath(FOLDER / "components" / name, folder) for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


def one(manifests: Sequence[Manifest], kind: str) -> Manifest:
    """The only object of this kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def faults(manifests: Sequence[Manifest]) -> Iterator[str]:
    """What schemas have against the objects: those of Kubernetes, strictly, and the models made from others' CRDs."""
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["apiVersion"] in _MODELS:
            # Its type checker would read megabytes of generated code where they were imported by name.
            model = getattr(importlib.import_module(_MODELS[manifest["apiVersion"]]), manifest["kind"])
            read = model.model_validate(manifest).model_dump(by_alias=True, exclude_unset=True, mode="json")
            # What the model does not know, it leaves out.
            if read != manifest:
                yield f"{name}: has what its schema does not know"
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{name}, Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"


def kserve_faults(manifests: Sequence[Manifest]) -> list[str]:
    """What the models of kserve's and Kubernetes' clients have against the objects; skips where they are not there."""
    if not KSERVE.exists():
        pytest.skip("kserve's client is not installed: run `make clients`")
    script = Path(__file__).with_name("kserve_schema.py")
    given = json.dumps(list(manifests))
    said = subprocess.run([KSERVE, script], input=given, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(said.stdout)
    return found


def kserve() -> list[Manifest]:
    return [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "deploy" / "kserve").glob("*.yaml"))]


def pod(manifests: list[Manifest]) -> dict[str, Any]:
    spec: dict[str, Any] = one(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(manifests: list[Manifest]) -> dict[str, Any]:
    (found,) = pod(manifests)["containers"]
    assert isinstance(found, dict)
    return found


def runtime() -> dict[str, Any]:
    (found,) = one(kserve(), "ServingRuntime")["spec"]["containers"]
    assert isinstance(found, dict)
    return found
