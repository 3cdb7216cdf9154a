"""The component: one declaration in, the assets, jobs and sensors of its lifecycle out."""

import dagster as dg
from pydantic import BaseModel

from aios_platform.contracts.declaration import ModelDeclaration


class ModelLifecycle(dg.Component):
    """A declared model and its whole lifecycle."""

    def __init__(self, declaration: ModelDeclaration) -> None:
        self.declaration = declaration

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return ModelDeclaration

    @classmethod
    def load(cls, attributes, context):
        return cls(attributes)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        @dg.asset(key=[self.declaration.name, "raw"])
        def raw() -> None: ...

        return dg.Definitions([raw])
