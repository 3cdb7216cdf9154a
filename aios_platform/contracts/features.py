"""The `features` section of a declaration: what a model may look at."""

from pydantic import Field, field_validator

from aios_platform.contracts.installed import check_installed
from aios_platform.contracts.record import Record
from aios_platform.extensions import Kind


class Features(Record):
    """What the model may look at."""

    service: str | None = Field(
        default=None,
        description="Name of the Feast feature service; unset, the request has all there is.",
    )
    sql: str | None = Field(
        default=None,
        description="Feature SQL of an installed package: its entry point in the group "
        "`aios_platform.feature_sql` (docs/how-to/extend.md). Unset, the folder features/.",
    )
    request: tuple[str, ...] = Field(
        default=(),
        description="Columns of the predicted table that the caller sends with a request.",
    )
    lookback_windows: int = Field(
        default=1,
        ge=0,
        description="Windows of history that the feature SQL reads besides its own.",
    )
    max_single_feature_auc: float = Field(
        default=0.8,
        gt=0.5,
        le=1,
        description="Leak canary: one feature that separates the label better than this is "
        "taken for a leak.",
    )

    @field_validator("sql")
    @classmethod
    def _installed(cls, value: str | None) -> str | None:
        if value is not None:
            check_installed(Kind.FEATURE_SQL, value)
        return value
