"""Write the rules of deploy/prometheus as the object that the Prometheus operator reads (`make manifests`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PROMETHEUS = Path(__file__).parent.parent / "prometheus"
FILE = Path(__file__).parent / "components" / "monitoring" / "prometheusrule.yaml"


class _Dumper(yaml.SafeDumper):
    """Expressions of several lines stay as they are read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def prometheus_rule() -> str:
    """The object as YAML, with the groups of every file that the shipped prometheus.yml names, in order."""
    files = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["rule_files"]
    groups: list[dict[str, Any]] = []
    for file in files:
        groups += yaml.safe_load((PROMETHEUS / file).read_text(encoding="utf-8"))["groups"]
    name = {"app.kubernetes.io/name": "pareto-gateway"}
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "pareto-gateway", "labels": name},
        "spec": {"groups": groups},
    }
    header = "# Made from deploy/prometheus/*.yml by `make manifests`.\n"
    return header + yaml.dump(rule, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def main() -> None:
    """Write the file."""
    FILE.write_text(prometheus_rule(), encoding="utf-8")


if __name__ == "__main__":
    main()
