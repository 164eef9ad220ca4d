"""Run by kserve's own interpreter (see `make clients`): reads objects as JSON, prints what is wrong with them.

KServe's packages hold no JSON schema, but models that were made from one: names and types of all fields.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import kserve.models  # type: ignore[import-not-found]  # it lives in an environment of its own
import kubernetes.client.models  # type: ignore[import-not-found]  # it comes with kserve

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
ANY = ("ResourceQuantity", "IntstrIntOrString", "V1ObjectMeta")
"""Types without fields of their own, or with ones that every object has."""


def faults(value: Any, kind: str, path: str) -> Iterator[str]:
    """Walk a value along the fields of its type."""
    if kind in ANY:
        return
    if kind in PLAIN:
        if not isinstance(value, PLAIN[kind]):  # type: ignore[arg-type]  # a class, or a pair of them
            yield f"{path}: expected {kind}, got {value!r}"
    elif match := re.fullmatch(r"[lL]ist\[(.*)\]", kind):
        if not isinstance(value, list):
            yield f"{path}: expected a list"
            return
        for index, item in enumerate(value):
            yield from faults(item, match[1], f"{path}[{index}]")
    elif match := re.fullmatch(r"[dD]ict[(\[]str, (.*)[)\]]", kind):
        for key, item in value.items():
            yield from faults(item, match[1], f"{path}.{key}")
    else:
        model = getattr(kserve.models, kind, None) or getattr(kubernetes.client.models, kind)
        fields = {model.attribute_map[name]: field for name, field in model.openapi_types.items()}
        for key, item in value.items():
            if key not in fields:
                yield f"{path}.{key}: no field of {kind}"
            else:
                yield from faults(item, fields[key], f"{path}.{key}")


def main() -> None:
    """One list for all objects."""
    found: list[str] = []
    for manifest in json.load(sys.stdin):
        version = manifest["apiVersion"].split("/")[1]
        kind = version[0].upper() + version[1:] + manifest["kind"]
        found += faults(manifest, kind, manifest["kind"])
    sys.stdout.write(json.dumps(found))


main()
