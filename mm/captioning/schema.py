"""JSON answers: the object in a text, and whether it is of a schema (a part of JSON Schema 2020-12)."""

import json
import re
from collections.abc import Mapping
from typing import Any

from mm.errors import OptionError

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_CHECKED = frozenset(
    ("type", "properties", "required", "additionalProperties", "items", "enum", "const", "minimum", "maximum")
    + ("minLength", "maxLength", "pattern", "minItems", "maxItems")
)
_NOTES = frozenset(("title", "description", "default", "examples", "$schema", "$id", "$comment"))


def check_schema(schema: object, where: str = "$") -> None:
    """Raise ``OptionError`` for a schema that ``violation`` could not check to its last word."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise OptionError(f"the schema has {schema!r} at {where}; expected an object or a boolean")
    unknown = sorted(set(schema) - _CHECKED - _NOTES)
    if unknown:
        raise OptionError(
            f"the schema uses {unknown[0]!r} at {where}, which is not checked. Known: {_listed(_CHECKED)}"
        )
    for name in _type_names(schema):
        if name not in _TYPES:
            raise OptionError(f"the schema has the type {name!r} at {where}. Known: {_listed(_TYPES)}")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping) or not isinstance(schema.get("required", []), list):
        raise OptionError(f"the schema at {where} needs an object as 'properties' and a list as 'required'")
    if not isinstance(schema.get("enum", []), list):
        raise OptionError(f"the schema at {where} needs a list as 'enum'")
    for name in ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"):
        if name in schema and (isinstance(schema[name], bool) or not isinstance(schema[name], int | float)):
            raise OptionError(f"the schema has {name} {schema[name]!r} at {where}; expected a number")
    if "pattern" in schema:
        try:
            re.compile(schema["pattern"])
        except (re.error, TypeError) as error:
            raise OptionError(f"the schema has a bad pattern at {where}: {error}. Correct it") from error
    for name, inner in properties.items():
        check_schema(inner, f"{where}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            check_schema(schema[name], f"{where}.{name}")


def parse_answer(text: str) -> Any:
    """The JSON value in an answer: all of it, or what stands in its first fence.

    Raises:
        ValueError: there is none.
    """
    fenced = re.search(r"```(?:json)?\s*\n(.*?)```", text, flags=re.DOTALL)
    return json.loads(fenced[1] if fenced else text, parse_constant=_refuse_constant)


def violation(value: object, schema: Mapping[str, Any] | bool, where: str = "$") -> str | None:
    """The first thing about ``value`` that a checked schema does not allow, or None."""
    if isinstance(schema, bool):
        return None if schema else f"{where} is not allowed"
    names = _type_names(schema)
    if names and not any(_is_of(value, name) for name in names):
        return f"{where} is {json.dumps(value)[:60]}, not of the type {' or '.join(names)}"
    if "enum" in schema and not any(_same(value, allowed) for allowed in schema["enum"]):
        return f"{where} is {json.dumps(value)[:60]}, not one of {json.dumps(schema['enum'])[:200]}"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{where} is {json.dumps(value)[:60]}, not {json.dumps(schema['const'])[:60]}"
    if isinstance(value, dict):
        return _object_violation(value, schema, where)
    if isinstance(value, list):
        wrong = _range_violation(len(value), schema, "Items", f"the length of {where}")
        inner = (violation(item, schema.get("items", True), f"{where}[{index}]") for index, item in enumerate(value))
        return wrong or next((found for found in inner if found), None)
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return f"{where} does not match {schema['pattern']!r}"
        return _range_violation(len(value), schema, "Length", f"the length of {where}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _range_violation(value, schema, "imum", where)
    return None


def _object_violation(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> str | None:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            return f"{where} lacks {name!r}"
    for name, item in value.items():
        found = violation(item, properties.get(name, schema.get("additionalProperties", True)), f"{where}.{name}")
        if found:
            return found
    return None


def _range_violation(value: float, schema: Mapping[str, Any], ending: str, what: str) -> str | None:
    low, high = schema.get(f"min{ending}"), schema.get(f"max{ending}")
    if low is not None and value < low:
        return f"{what} is {value}, less than {low}"
    if high is not None and value > high:
        return f"{what} is {value}, more than {high}"
    return None


def _type_names(schema: Mapping[str, Any]) -> list[str]:
    names = schema.get("type", [])
    return [names] if isinstance(names, str) else [str(name) for name in names]


def _is_of(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _same(value: object, other: object) -> bool:
    """Equal as JSON values: True is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
