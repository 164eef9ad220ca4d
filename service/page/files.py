"""The files of the page: a closed set, read once, with the headers that let a browser run nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from service.exchange import Scope, Send, send_whole

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content Security Policy: nothing from elsewhere, nothing written into the page itself."""
HEADERS = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # For browsers that do not know `frame-ancestors`.
    (b"x-frame-options", b"DENY"),
    # A browser asks again each time and is told when nothing has changed.
    (b"cache-control", b"no-cache"),
)


class PageFile:
    """One file of the page, as it is sent."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._type = TYPES[path.suffix]
        self._tag = f'"{hashlib.sha256(self._content).hexdigest()[:20]}"'.encode()

    async def send(self, scope: Scope, send: Send) -> None:
        """Send it, or 304 to a browser that has it."""
        headers = (*HEADERS, (b"etag", self._tag))
        known = next((value for name, value in scope["headers"] if name == b"if-none-match"), b"")
        if known == self._tag:
            await send_whole(send, 304, b"", self._type, headers)
        else:
            await send_whole(send, 200, self._content, self._type, headers)


def page_files() -> dict[str, PageFile]:
    """The files by the path under which they are served: `/` and `/page/NAME`."""
    files = {f"/page/{path.name}": PageFile(path) for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}
    files["/"] = files.pop(f"/page/{INDEX}")
    return files
