"""Finds the declared models without loading Dagster's definitions."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.record import nearest
from aios_platform.declarations import declarations
from aios_platform.errors import DeclarationError
from aios_platform.settings import PROJECT_ROOT, settings

DEFS = Path(__file__).resolve().parents[2] / "defs"


def declared_models(folder: Path = DEFS) -> dict[str, Names]:
    """All declared models by name.

    Raises:
        DeclarationError: A declaration is wrong.
    """
    return {
        name: Names(declaration, place)
        for name, (declaration, place) in declarations(folder).items()
    }


def declared_model(name: str, folder: Path = DEFS) -> Names:
    """One declared model.

    Raises:
        DeclarationError: There is none of this name, or its declaration is wrong.
    """
    models = declared_models(folder)
    if name not in models:
        raise DeclarationError(
            f"No model '{name}' is declared under {folder.name}/.",
            remedy=nearest(name, models),
        )
    return models[name]


def affected_models(paths: Iterable[str], models: Mapping[str, Names]) -> list[str]:
    """The models that a change to these files is about.

    A file in a model's folder is about that model; one in the feature repository is about every
    model, since feature views are shared.

    Args:
        paths: Changed files, relative to the project's root, as `git diff --name-only` gives them.
        models: The declared models by name.
    """
    changed = [(PROJECT_ROOT / path.strip()).resolve() for path in paths if path.strip()]
    repository = settings().feature_repo.resolve()
    if any(path.is_relative_to(repository) for path in changed):
        return sorted(models)
    return sorted(
        name
        for name, names in models.items()
        if any(path.is_relative_to(names.folder.resolve()) for path in changed)
    )
