"""Finds and validates the declarations of models, without Dagster and without importing them."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.record import nearest
from aios_platform.errors import DeclarationError
from aios_platform.settings import settings

COMPONENT = "aios_platform.components.ModelLifecycle"


def declarations(folder: Path | None = None) -> dict[str, tuple[ModelDeclaration, Path]]:
    """All declared models by name, each with the folder its declaration stands in.

    Args:
        folder: Where to look for `defs.yaml`; unset, AIOS_DEFS.

    Raises:
        DeclarationError: A declaration is wrong.
    """
    found: dict[str, tuple[ModelDeclaration, Path]] = {}
    for path in sorted((folder or settings().defs).glob("**/defs.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, dict) and document.get("type") == COMPONENT:
                declaration = parse(document.get("attributes") or {}, path)
                found[declaration.name] = (declaration, path.parent)
    return found


def declaration_of(name: str, folder: Path | None = None) -> ModelDeclaration:
    """One declared model.

    Raises:
        DeclarationError: There is none of this name, or its declaration is wrong.
    """
    found = declarations(folder)
    if name not in found:
        place = (folder or settings().defs).name
        raise DeclarationError(
            f"No model '{name}' is declared under {place}/.", remedy=nearest(name, found)
        )
    return found[name][0]


def parse(attributes: object, path: Path) -> ModelDeclaration:
    """Validate the attributes of a `defs.yaml`.

    Raises:
        DeclarationError: With every wrong field, what was expected, and where.
    """
    try:
        return ModelDeclaration.model_validate(attributes)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'attributes'}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise DeclarationError(
            f"{path}: " + "; ".join(problems), remedy="docs/declaration.md describes every field."
        ) from None
