"""What pages written by the project look like and how they say numbers: one style, one set of words.

A page is one file that loads nothing, runs nothing, and fits light, dark and narrow screens. Its template includes
`style.css` and says what is its own.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

UNKNOWN = "-"


def page_environment(folder: Path) -> Environment:
    """Return the engine for the templates of a folder; everything that is not markup is escaped."""
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "ms": milliseconds,
        "mb": megabytes,
        "count": count,
        "number": number,
    }
    return environment


def percent(fraction: float | None, error: float | None = None) -> str:
    """Say a fraction in percent, with its standard error where it is known."""
    if fraction is None:
        return UNKNOWN
    return f"{fraction * 100:.1f}" + (f" ± {error * 100:.1f}" if error is not None else "")


def milliseconds(seconds: float | None) -> str:
    """Say seconds in milliseconds, three digits."""
    return UNKNOWN if seconds is None else f"{seconds * 1e3:.3g}"


def megabytes(size_bytes: int | None) -> str:
    """Say bytes in millions, three digits."""
    return UNKNOWN if size_bytes is None else f"{size_bytes / 1e6:.3g}"


def count(value: int | None) -> str:
    """Say a count with a thousand, million or thousand millions as its unit."""
    if value is None:
        return UNKNOWN
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)


def number(value: float | None) -> str:
    """Say a number with three digits."""
    return UNKNOWN if value is None else f"{value:.3g}"
