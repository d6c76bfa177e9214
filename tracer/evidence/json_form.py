"""Values of evidence as JSON and back, by the types of their members.

An object of JSON is a dataclass, by its members' names; an enumeration is its value. What a
reader does not know is refused: it is never left out, and nothing is made up for it.
Members with a default may be missing, because evidence of an older version lacks them. A class
with ``to_json`` and ``from_json`` of its own has a form of its own.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from typing import Any, TypeVar

from zctrace.errors import UsageError

T = TypeVar("T")


def write(value: Any) -> Any:
    """The members of a dataclass, and everything in them, as :mod:`json` can write it."""
    return {
        field.name: _written(getattr(value, field.name)) for field in dataclasses.fields(value)
    }


def read(kind: type[T], values: dict[str, Any]) -> T:
    """A ``kind`` from the object that :func:`write` made of it.

    Raises ``UsageError`` for members that ``kind`` has not, or lacks. Types are not checked:
    what a file holds is held against its form first (``zctrace.analysis.saved_form``).
    """
    try:
        return typing.cast(T, _object(kind, values))
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise UsageError(
            f"this is no {kind.__name__} that this zctrace can read",
            "another version of zctrace wrote it",
            "use the same version of zctrace for both",
        ) from error


@functools.cache
def _members(kind: Any) -> dict[str, Any]:
    """The types of its members."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _object(kind: Any, values: dict[str, Any]) -> Any:
    members = _members(kind)
    return kind(**{name: _read(members[name], part) for name, part in values.items()})


def _written(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return write(value)
    if isinstance(value, dict):
        return {name: _written(part) for name, part in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [_written(part) for part in value] if isinstance(value, tuple | list) else value


def _read(hint: Any, value: Any) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        (hint,) = (part for part in parts if part is not types.NoneType)
        return None if value is None else _read(hint, value)
    if origin is dict:
        return {_read(parts[0], name): _read(parts[1], part) for name, part in value.items()}
    if origin is frozenset:
        return frozenset(_read(parts[0], part) for part in value)
    if origin is tuple and parts[1:] == (...,):
        return tuple(_read(parts[0], part) for part in value)
    if origin is tuple:
        return tuple(_read(*part) for part in zip(parts, value, strict=True))
    if hasattr(hint, "from_json"):
        return hint.from_json(value)
    if dataclasses.is_dataclass(hint):
        return _object(hint, value)
    if isinstance(hint, enum.EnumMeta):
        return hint(value)
    return value
