"""The form of saved results: what a file has to be, and the JSON Schema that says so.

The dataclasses of evidence are the only description. Forms are made of them, which msgspec
checks a file against, and which refuse members that no dataclass has: msgspec would leave
those of a dataclass out without a word.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import re
import types
import typing
from collections import Counter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from zctrace.analysis import consistency
from zctrace.errors import UsageError
from zctrace.evidence import json_form
from zctrace.evidence.schema import SCHEMA, Evidence
from zctrace.printable import printable
from zctrace.probes.model import Direction, Quantity
from zctrace.workloads.known import Known

_LARGEST = 2**63 - 1
_NUMBER = Annotated[int, Meta(ge=0, le=_LARGEST)]
_SIGNED = Annotated[int, Meta(ge=-_LARGEST, le=_LARGEST)]
_SECONDS = Annotated[float, Meta(ge=0, le=1e18)]
_MOVED = f"({'|'.join(Quantity)}):({'|'.join(Direction)})"
_AMOUNTS = dict[Annotated[str, Meta(pattern=f"^(syscall:.*|{_MOVED})$")], _NUMBER]
_BELOW_ZERO = {"status", "descriptor"}
"""Members that may be negative: no other number is."""


class Kernel(msgspec.Struct):
    """What was observed of the kernel; reports need these members and ignore the others."""

    release: str
    version: str


class Machine(msgspec.Struct):
    """Where that kernel ran; ``kind`` is ``host``, ``qemu-kvm`` or ``qemu-tcg``."""

    kind: str
    cpu: str
    cpus: _NUMBER
    memory_bytes: _NUMBER


class Rights(msgspec.Struct):
    """What strategies could do; empty if there were none."""

    uid: _NUMBER | None = None


_OWN: dict[str, Any] = {"kernel": Kernel, "machine": Machine, "rights": Rights}
"""The forms of members that evidence has as plain objects."""


@functools.cache
def _form(kind: Any) -> Any:
    """The form of a dataclass: its members, and no others."""
    if kind is Known:
        return _AMOUNTS
    hints = typing.get_type_hints(kind)
    members: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for field in dataclasses.fields(kind):
        name = field.name
        form = _OWN[name] if kind is Evidence and name in _OWN else _part(hints[name], name)
        if field.default_factory is not dataclasses.MISSING:
            members.append((name, form, msgspec.field(default_factory=field.default_factory)))
        elif field.default is not dataclasses.MISSING:
            members.append((name, form, field.default))
        else:
            members.append((name, form))
    return msgspec.defstruct(
        kind.__name__,
        members,
        namespace={"__doc__": inspect.cleandoc(kind.__doc__ or "")},
        kw_only=True,
        forbid_unknown_fields=True,
    )


def _part(hint: Any, name: str) -> Any:
    """The form of a member's type."""
    if dataclasses.is_dataclass(hint):
        return _form(typing.cast(Any, hint))
    if hint is int:
        return _SIGNED if name in _BELOW_ZERO else _NUMBER
    if hint is float:
        return _SECONDS
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if not parts:
        return hint
    forms = tuple(part if part is Ellipsis else _part(part, name) for part in parts)
    return typing.Union[forms] if origin is types.UnionType else origin[forms]  # noqa: UP007


@functools.cache
def result() -> Any:
    """The form of a whole file."""
    evidence: Any = types.GenericAlias(tuple, (_form(Evidence), ...))
    return msgspec.defstruct(
        "Result",
        [("evidence", evidence), ("summary", Any, None)],
        namespace={
            "__doc__": "What ``zctrace run``, ``trace`` and ``check`` write with ``--json``. "
            "``summary`` is for other programs: ``zctrace report`` reads ``evidence`` alone."
        },
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of saved results."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A saved result of zctrace, schema {SCHEMA}",
        **msgspec.json.schema(result()),
    }


def evidence_of(content: bytes) -> list[Evidence]:
    """What a file's content holds; raises ``UsageError`` that names the place in it."""
    strange: list[str] = []
    values = _parsed(content, strange)
    _require_schema(values)
    try:
        _require_form(values)
    except UnicodeEncodeError:
        # It cannot say what it refuses. What it takes may be no UTF-8: names of files.
        values = _utf8(values)
        _require_form(values)
    if strange:  # where the form looks, its message has the place
        raise _no_json(f"{strange[0]} is no number")
    evidences = [json_form.read(Evidence, one) for one in values["evidence"]]
    for number, evidence in enumerate(evidences):
        for place, reason in consistency.faults(evidence):
            raise refused(f"evidence[{number}].{place}", reason)
    return evidences


def _require_form(values: Any) -> None:
    """Raise ``UsageError`` for values of another form, with the place."""
    try:
        msgspec.convert(values, result())
    except msgspec.ValidationError as error:
        place, reason = _said(values, error)
        raise refused(place, reason) from error


def _utf8(value: Any) -> Any:
    """The value, with escapes in the place of what is not UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_utf8(name): _utf8(part) for name, part in value.items()}
    return [_utf8(part) for part in value] if isinstance(value, list) else value


def _parsed(content: bytes, strange: list[str]) -> Any:
    """The values of JSON text; raises ``UsageError``. ``strange`` gets what is no number.

    By :mod:`json`, since msgspec refuses names of files that are not UTF-8.
    """
    try:
        return json.loads(
            content,
            parse_constant=functools.partial(_number, strange),
            parse_float=functools.partial(_number, strange),
            object_pairs_hook=_each_once,
        )
    except UnicodeDecodeError as error:
        raise _no_json(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        if not error.doc[error.pos :].strip():
            raise _no_json(f"the file ends too early, at {place}") from error
        raise _no_json(f"{place}: {_lower(error.msg)}") from error
    except RecursionError as error:
        raise _no_json("objects and lists are nested too deeply") from error
    except _NotJsonError as error:
        raise _no_json(str(error)) from error
    except ValueError as error:
        raise _no_json("a number has too many digits") from error


class _NotJsonError(Exception):
    """Values that are not JSON, and that Python's parser accepts."""


def _number(strange: list[str], text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        strange.append(text)
    return value


def _each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; of two members of one name, one would be lost without a word."""
    values = dict(members)
    if len(values) < len(members):
        twice, _ = Counter(name for name, _ in members).most_common(1)[0]
        raise _NotJsonError(f"an object has two members {twice!r}")
    return values


def refused(place: str, reason: str) -> UsageError:
    """The error about a place in a file."""
    inside, reason = place.startswith("evidence["), printable(reason)
    return UsageError(
        f"{place}: {reason}" if inside else f"not a result of zctrace: {reason}",
        "the file is no result of zctrace, was changed, or is of another version of zctrace",
        "a file that zctrace run --json or zctrace trace --json has written",
    )


def _no_json(reason: str) -> UsageError:
    return UsageError(
        f"not a result of zctrace: not JSON: {reason}",
        "the file is damaged, incomplete, or no result of zctrace",
        "a file that zctrace run --json or zctrace trace --json has written",
    )


def _require_schema(values: Any) -> None:
    """Raise ``UsageError`` for evidence of another version: its members say nothing then."""
    evidence = values.get("evidence") if isinstance(values, dict) else None
    for number, one in enumerate(evidence if isinstance(evidence, list) else ()):
        found = one.get("schema") if isinstance(one, dict) else SCHEMA
        if type(found) is int and found != SCHEMA:
            raise UsageError(
                f"evidence[{number}].schema: {found}, but this zctrace reads {SCHEMA}",
                "the file was written by another version of zctrace",
                'use the version named under "tool" in the file',
            )


_MESSAGE = re.compile(
    r"(?P<reason>.*?)(?: - at (?P<key>`key` in )?`\$\.?(?P<place>.*)`)?", re.S
)
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_ANY = "[...]"
"""How msgspec names a member of an object whose members have no names of their own."""


def _said(values: Any, error: msgspec.ValidationError) -> tuple[str, str]:
    """The place and the reason of msgspec's message."""
    found = _MESSAGE.fullmatch(str(error))
    assert found is not None
    place = (found["place"] or "") + (_ANY if found["key"] else "")
    place, *others = place.split(_ANY)
    for after in others:
        place = f"{place}[{_member(values, place, str(error))!r}]{after}"
    reason = _lower(found["reason"].replace("`", ""))
    return place, reason if not found["key"] else "no such quantity and direction"


def _member(values: Any, place: str, message: str) -> str:
    """The member of the object at ``place`` that ``message`` is about.

    The others are taken out of the object.
    """
    inside = values
    for number, name in _STEP.findall(place):
        inside = inside[int(number) if number else name]
    members = dict(inside)
    for name, value in members.items():
        inside.clear()
        inside[name] = value
        try:
            msgspec.convert(values, result())
        except msgspec.ValidationError as error:
            if str(error) == message:
                return str(name)
    return "?"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
