"""Writes docs/openapi.json (`make openapi`)."""

from __future__ import annotations

import json
from pathlib import Path

from service.openapi.document import openapi_document

if __name__ == "__main__":
    Path("docs", "openapi.json").write_text(json.dumps(openapi_document(), indent=2) + "\n")
