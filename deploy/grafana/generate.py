"""Write the dashboards as the JSON that Grafana reads (`make dashboards`)."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.capacity import capacity
from deploy.grafana.family import family
from deploy.grafana.overview import overview
from deploy.grafana.tenant import tenant

FOLDER = Path(__file__).parent / "dashboards"
BUILDERS = (overview, family, tenant, capacity)


def dashboards() -> dict[str, str]:
    """The text of each file by its name."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {f"{builder.__name__}.json": encoder.encode(builder().build()) + "\n" for builder in BUILDERS}


def main() -> None:
    """Write all of them, and take away what is none of them any more."""
    texts = dashboards()
    for path in FOLDER.glob("*.json"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"written: {FOLDER / name}\n")


if __name__ == "__main__":
    main()
