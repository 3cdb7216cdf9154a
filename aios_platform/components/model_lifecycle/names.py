"""What the parts of one model's lifecycle are called: assets, jobs, datasets, tags."""

from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.extensions import Kind, folder_of

MODEL_TAG = "aios/model"
CAUSE_TAG = "aios/cause"
CAUSE_KEY_TAG = "aios/cause_key"
AS_OF_TAG = "aios/as_of"
EXCLUSIVE_TAG = "aios/exclusive"
LAUNCHED_BY_TAG = "aios/launched_by"
COMMAND = "aios run"
REQUEST_TAG = "aios/approval_request"
VERSION_TAG = "aios/model_version"


@dataclass(frozen=True)
class Names:
    """Names derived from a declaration and the folder it stands in."""

    declaration: ModelDeclaration
    folder: Path

    @property
    def model(self) -> str:
        """The model's name; prefix of its assets and datasets."""
        return self.declaration.name

    def asset(self, stage_output: str) -> dg.AssetKey:
        """Key of one of the model's assets."""
        return dg.AssetKey([self.model, stage_output])

    def job(self, job: str) -> str:
        """Name of one of the model's jobs, sensors or schedules."""
        return f"{self.model}__{job}"

    @property
    def automation(self) -> str:
        """What Dagster calls the state in which sensors and the schedule begin."""
        return self.declaration.automation.upper()

    @property
    def sql_folder(self) -> Path:
        """Folder of the model's feature SQL: its own, or that of an installed package.

        Raises:
            ExtensionError: The package cannot be imported.
        """
        added = self.declaration.features.sql
        return self.folder / "features" if added is None else folder_of(Kind.FEATURE_SQL, added)

    @property
    def raw_rows(self) -> str:
        """Dataset of the table whose rows are predicted."""
        return f"{self.model}/raw/{self.declaration.source.rows}"

    @property
    def feature_tables(self) -> tuple[str, ...]:
        """Datasets of the feature tables, one per SQL file."""
        return tuple(
            f"{self.model}/features/{path.stem}" for path in sorted(self.sql_folder.glob("*.sql"))
        )

    @property
    def frames(self) -> str:
        """Dataset of feature frames: rows joined with what was known at their prediction time."""
        return f"{self.model}/scoring_frame"

    @property
    def predictions(self) -> str:
        """Dataset of batch predictions."""
        return f"{self.model}/predictions"
