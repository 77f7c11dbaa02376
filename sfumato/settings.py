"""Configuration as nested frozen dataclasses, to and from plain JSON, guided by type annotations alone."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any, TypeVar

from sfumato.core import SfumatoError

T = TypeVar("T")


def to_dict(value: Any) -> Any:
    """A JSON-able copy of a dataclass tree; each dataclass carries its class name under "is"."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, (list, tuple)):
        return [to_dict(v) for v in value]
    return value


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """The dataclass tree that `to_dict` wrote; raises SfumatoError naming the field that does not fit."""
    if not isinstance(data, dict):
        raise SfumatoError(f"{where or cls.__name__} should be an object, not {data!r}")
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}
    unknown = set(data) - names - {"is"}
    if unknown:
        raise SfumatoError(
            f"{where or cls.__name__} has no field {sorted(unknown)[0]!r}; it has {', '.join(sorted(names))}"
        )
    missing = [f.name for f in dataclasses.fields(cls) if _required(f) and f.name not in data]
    if missing:
        raise SfumatoError(f"{where or cls.__name__} lacks {missing[0]!r}")
    values = {k: _decode(hints[k], v, f"{where}.{k}".lstrip(".")) for k, v in data.items() if k != "is"}
    return cls(**values)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _decode(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(args, value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise SfumatoError(f"{where} should be a list, not {value!r}")
        return tuple(_decode(args[0], v, where) for v in value)
    if origin is typing.Literal:
        if value not in args:
            raise SfumatoError(f"{where} should be one of {', '.join(map(str, args))}, not {value!r}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise SfumatoError(f"{where} should be {hint.__name__}, not {value!r}")
    if hint is float and not math.isfinite(value):
        raise SfumatoError(f"{where} should be a finite number, not {value!r}")
    return value


def _decode_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    choices = {a.__name__: a for a in args if dataclasses.is_dataclass(a)}
    if choices:
        # a bare name is a choice with its defaults: --set process=VPCosine
        name = value if isinstance(value, str) else value.get("is") if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in choices:
            known = [*choices, "null"] if type(None) in args else choices
            raise SfumatoError(f"{where} should be one of {', '.join(known)}, not {value!r}")
        return from_dict(choices[name], {} if isinstance(value, str) else value, where)
    return _decode(next(a for a in args if a is not type(None)), value, where)


def override(config: T, assignments: list[str], flag: str = "--set") -> T:
    """The config with `key.path=value` applied, values in JSON or bare words.

    Raises SfumatoError, naming the `flag` it was said with, when a key is unknown."""
    for text in assignments:
        key, eq, raw = text.partition("=")
        if not eq:
            raise SfumatoError(f"{flag} {text!r}: write key=value")
        try:
            value = json.loads(raw)
        except json.JSONDecodeError:
            value = raw
        config = _replace(config, key.split("."), value, (flag, key))
    return config


def _replace(config: Any, path: list[str], value: Any, whole: tuple[str, str]) -> Any:
    """`whole`: the flag and the whole key, as they were said."""
    said = " ".join(whole)
    names = [f.name for f in dataclasses.fields(config)]
    if path[0] not in names:
        raise SfumatoError(f"{said}: {type(config).__name__} has no {path[0]!r}; it has {', '.join(names)}")
    if len(path) > 1:
        inner = getattr(config, path[0])
        if not dataclasses.is_dataclass(inner):
            raise SfumatoError(f"{said}: {path[0]!r} has no parts")
        return dataclasses.replace(config, **{path[0]: _replace(inner, path[1:], value, whole)})
    hint = typing.get_type_hints(type(config))[path[0]]
    return dataclasses.replace(config, **{path[0]: _decode(hint, value, whole[1])})
