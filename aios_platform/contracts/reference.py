"""Writes `docs/declaration.md` from the declaration's own types: `python -m` this module."""

import enum
import json
import types
import typing
from collections.abc import Iterator
from datetime import date
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from aios_platform.contracts.declaration import ModelDeclaration

INTRODUCTION = """\
# The declaration of a model

Generated from `aios_platform/contracts/declaration.py` by
`python -m aios_platform.contracts.reference > docs/declaration.md`; a test keeps it true.

A model is one folder under `aios_platform/defs/`:

| file | what it is |
|---|---|
| `defs.yaml` | `type: aios_platform.components.ModelLifecycle`, and `attributes:` as below |
| `source.py` | the function that `source.entrypoint` names |
| `features/*.sql` | one DuckDB query per feature table, over the raw tables by their names |

and one file in `feature_repo/` with its Feast entities, feature views and feature service.
A wrong declaration is refused with the file, the line, the field, what was expected and the
nearest valid name: `dg check yaml` for the form, `dg check defs` for the references.
"""


def reference() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION]
    for path, model in _models("", ModelDeclaration):
        title = f"`{path}`" if path else "`attributes`"
        parts.append(f"\n## {title}\n\n{_first_paragraph(model)}\n\n")
        parts.append("| field | type | default | meaning |\n|---|---|---|---|\n")
        for name, field in model.model_fields.items():
            parts.append(
                f"| `{name}` | {_type(field.annotation)} | {_default(field)} "
                f"| {field.description or ''} |\n"
            )
    return "".join(parts)


def _models(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        for part, suffix in _nested(field.annotation):
            yield from _models(f"{path}.{name}{suffix}".lstrip("."), part)


def _nested(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    elif get_origin(annotation) is dict:
        for part, _ in _nested(get_args(annotation)[1]):
            yield part, ".<name>"
    elif get_origin(annotation) in (typing.Union, types.UnionType):
        for inner in get_args(annotation):
            yield from _nested(inner)


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return _type(get_args(annotation)[0])
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(a) for a in get_args(annotation) if a is not type(None))
    if origin is dict:
        return f"mapping to {_type(get_args(annotation)[1])}"
    if origin in (tuple, list):
        return f"list of {_type(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " \\| ".join(f"`{member.value}`" for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__
    if annotation is Any:
        return "any value"
    names = {str: "text", int: "integer", float: "number", bool: "true/false", date: "date"}
    return names.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own defaults"
    if value is None:
        return "unset"
    if isinstance(value, enum.Enum):
        return f"`{value.value}`"
    if isinstance(value, tuple):
        return f"`{json.dumps([_written(item) for item in value])}`"
    return f"`{value}`" if value != "" else "empty"


def _written(item: Any) -> Any:
    """An item of a default as a declaration would write it."""
    return item.model_dump(mode="json", exclude_unset=True) if isinstance(item, BaseModel) else item


def _first_paragraph(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split("\n\n")[0].split())


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - this is its output
