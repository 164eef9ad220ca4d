"""How policies are copied and sent to other processes, compiled ones as well."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def by_fields(value: DataclassInstance) -> tuple[type[DataclassInstance], tuple[object, ...]]:
    """What `__reduce__` of a frozen dataclass may return: made anew, from its fields.

    A compiled one cannot be made empty and filled afterwards, as `copy` and `pickle` would.
    """
    return type(value), tuple([getattr(value, field.name) for field in fields(value) if field.init])
