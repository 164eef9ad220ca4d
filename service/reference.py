"""The settings as a table for people, derived from their definitions so that it cannot fall behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from service.device_settings import DeviceSettings
from service.machine_settings import MachineSettings
from service.observability_settings import ObservabilitySettings
from service.planning_settings import PlanningSettings
from service.scoped_settings import FamilySettings, TenantSettings
from service.security_settings import SecuritySettings
from service.settings import PREFIX, Settings

_APART = (MachineSettings, PlanningSettings, ObservabilitySettings, SecuritySettings)
"""Classes of settings, in the order in which they are shown."""

_NAMES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "array": "names",
    "boolean": "yes or no",
    "object": "names",
}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def settings_reference() -> str:
    """A Markdown table of every setting: key in the file, variable, values, default, meaning."""
    rows = ["| key | variable | values | default | meaning |", "|---|---|---|---|---|"]
    for key, variable, schema in _entries():
        default = _default(schema.get("default"))
        rows.append(f"| `{key}` | `{variable}` | {_values(schema)} | {default} | {schema['description']} |")
    return "\n".join(rows) + "\n"


def _entries() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    top = Settings.model_json_schema()
    # Those that classes of their own define come after those that `Settings` does.
    apart = [own.model_fields for own in reversed(_APART)]
    for key, schema in sorted(top["properties"].items(), key=lambda item: [item[0] in own for own in apart]):
        if key != "families":
            yield key, PREFIX + key.upper(), _resolved(schema, top)
    for table, model in (
        ("families", FamilySettings),
        ("tenants", TenantSettings),
        ("devices", DeviceSettings),
    ):
        own = model.model_json_schema()
        for key, schema in own["properties"].items():
            yield f"{table}.NAME.{key}", f"{PREFIX}{table.upper()}__NAME__{key.upper()}", _resolved(schema, own)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with its reference and its "or nothing" taken in, so that type and bounds stand at the top."""
    merged = dict(schema)
    for part in schema.get("anyOf", ()):
        if part.get("type") != "null":
            merged |= part
    if "$ref" in merged:
        described = {key: merged[key] for key in ("description", "default") if key in merged}
        merged = root["$defs"][merged["$ref"].rpartition("/")[2]] | described
    return merged


def _values(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("items", {}).get("type") == "integer":
        return "whole numbers"
    kind = "path" if schema.get("format") == "path" else _NAMES[schema["type"]]
    bounds = [f"{sign} {schema[bound]}" for bound, sign in _BOUNDS.items() if bound in schema]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _default(value: object) -> str:
    if value is None or value in ([], {}):
        return ""
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"
