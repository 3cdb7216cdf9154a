"""The component: one declaration in, the assets, checks, jobs and sensors of its lifecycle out."""

import ast
import importlib.util
from pathlib import Path
from typing import Self

import dagster as dg
from pydantic import BaseModel

from aios_platform.components.model_lifecycle.approvals import approval_job
from aios_platform.components.model_lifecycle.data import data_assets
from aios_platform.components.model_lifecycle.error_budget import error_budget_sensor
from aios_platform.components.model_lifecycle.features import feature_assets
from aios_platform.components.model_lifecycle.freshness import freshness_sensor
from aios_platform.components.model_lifecycle.inference import inference_assets
from aios_platform.components.model_lifecycle.jobs import jobs_of
from aios_platform.components.model_lifecycle.monitoring import monitoring_assets
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.promotion import promotion_assets
from aios_platform.components.model_lifecycle.reproducing import reproduce_job, reproduce_schedule
from aios_platform.components.model_lifecycle.rollout_watch import rollout_sensor
from aios_platform.components.model_lifecycle.scaffolding import ModelScaffolder
from aios_platform.components.model_lifecycle.sensors import schedules_of, sensors_of
from aios_platform.components.model_lifecycle.training import training_assets
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.record import nearest
from aios_platform.declarations import parse
from aios_platform.errors import DeclarationError
from aios_platform.settings import settings


@dg.scaffold_with(ModelScaffolder)
class ModelLifecycle(dg.Component):
    """A declared model and its whole lifecycle.

    The attributes are those of `aios_platform.contracts.declaration.ModelDeclaration`;
    `docs/declaration.md` is their reference.
    """

    def __init__(self, declaration: ModelDeclaration) -> None:
        self.declaration = declaration

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The typed schema of the attributes in `defs.yaml`."""
        return ModelDeclaration

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """What `dg list components` shows."""
        return dg.ComponentTypeSpec(
            description="A declared model and its whole lifecycle.",
            owners=["team:platform"],
            tags=["ml", "lifecycle"],
        )

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Resolve templates such as `{{ env.X }}` in the attributes, and validate what they give.

        Raises:
            DeclarationError: A resolved value is wrong.
        """
        if attributes is None:
            raise DeclarationError(
                f"{context.path}: the declaration has no attributes.",
                remedy="docs/declaration.md describes them.",
            )
        written = attributes.model_dump(mode="json", exclude_unset=True)
        resolved = context.resolution_context.resolve_value(written)
        if resolved == written and isinstance(attributes, ModelDeclaration):
            return cls(attributes)
        return cls(parse(resolved, context.path))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The assets, checks, jobs, sensors and schedule of the model."""
        names = Names(self.declaration, Path(context.path))
        check_references(names)
        return lifecycle_definitions(names)


def lifecycle_definitions(names: Names) -> dg.Definitions:
    """Everything that one declaration turns into."""
    jobs = jobs_of(names)
    reproduction = reproduce_job(names)
    return dg.Definitions(
        assets=[
            *data_assets(names),
            *feature_assets(names),
            *training_assets(names),
            *promotion_assets(names),
            *inference_assets(names),
            *monitoring_assets(names),
        ],
        jobs=[*jobs, approval_job(names), reproduction],
        sensors=[
            *sensors_of(names, jobs),
            freshness_sensor(names),
            rollout_sensor(names),
            error_budget_sensor(names),
        ],
        schedules=[*schedules_of(names, jobs), reproduce_schedule(names, reproduction)],
    )


def check_references(names: Names) -> None:
    """Check what a declaration names outside itself, without importing anything heavy.

    Raises:
        DeclarationError: The source function, the feature service or the feature SQL is not there.
    """
    place = f"{names.folder / 'defs.yaml'} ({names.model})"
    entrypoint = names.declaration.source.entrypoint
    if entrypoint is not None:
        _check_entrypoint(place, entrypoint)
    if names.declaration.features.service is None:
        if names.feature_tables:
            raise DeclarationError(
                f"{place}: there is feature SQL in {names.sql_folder}, but no features.service "
                "that takes what it makes.",
                remedy="Name the feature service, or remove the SQL.",
            )
        return
    services = declared_services(settings().feature_repo)
    if names.declaration.features.service not in services:
        raise DeclarationError(
            f"{place}: features.service names '{names.declaration.features.service}', which "
            f"{settings().feature_repo.name}/ does not define.",
            remedy=nearest(names.declaration.features.service, services),
        )
    if not names.feature_tables:
        raise DeclarationError(
            f"{place}: there is no feature SQL in {names.sql_folder}.",
            remedy="Write at least one query, features/<table>.sql.",
        )


def _check_entrypoint(place: str, entrypoint: str) -> None:
    module, function = entrypoint.split(":")
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise DeclarationError(
            f"{place}: source.entrypoint names the module '{module}', which is not there.",
            remedy="Correct the name, or install the package it belongs to.",
        )
    functions = {
        node.name
        for node in ast.parse(Path(spec.origin).read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    if function not in functions:
        raise DeclarationError(
            f"{place}: source.entrypoint names '{function}', which {module} does not define.",
            remedy=nearest(function, functions),
        )


def declared_services(repository: Path) -> set[str]:
    """Names of the feature services that a Feast repository's files define.

    Read from the syntax tree: importing the files would import Feast, which takes seconds.
    """
    found = set()
    for path in sorted(repository.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("FeatureService"):
                for keyword in node.keywords:
                    if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                        found.add(str(keyword.value.value))
    return found
