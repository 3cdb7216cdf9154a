"""How far a replay has come: kept after every run, so that the same command goes on."""

from datetime import datetime

from pydantic import Field

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.record import Record
from aios_platform.errors import TrainingError


class RunDone(Record):
    """One Dagster run of a replay."""

    run_id: str
    clock: datetime
    job: str
    cause: str
    first: str | None = None
    last: str | None = None
    window: str = Field(description="The window it is counted to.")
    seconds: float = Field(ge=0, description="Wall time, what lies between its steps included.")
    training_seconds: float = Field(
        default=0.0, ge=0, description="Of them, the training set and the training itself."
    )
    failure: str = ""


class AskedTraining(Record):
    """A training that is to be: of the yardstick that is trained again with every window."""

    window: str = Field(description="The window whose labels had just matured.")
    clock: datetime
    trained_through: str
    training_set_digest: str
    seconds: float = Field(ge=0)


class EveryTraining(AskedTraining):
    """A training that was."""

    model_digest: str
    shared: bool = Field(description="The loop trained the same model at that moment.")

    @classmethod
    def beside(cls, asked: AskedTraining, model_digest: str, seconds: float) -> "EveryTraining":
        """One that was trained beside the replay, in so many seconds on top of those before."""
        said = asked.model_dump() | {"seconds": asked.seconds + seconds}
        return cls(**said, model_digest=model_digest, shared=False)


class FailedTraining(AskedTraining):
    """A training that gave no model: the one before it stays the yardstick, as it would in life."""

    reason: str

    @classmethod
    def of(cls, asked: AskedTraining, error: TrainingError) -> "FailedTraining":
        """What was asked for, and why it gave nothing."""
        return cls(**asked.model_dump(), reason=error.what)


class Progress(Record):
    """A replay under way, or done."""

    model: str
    first: str
    last: str
    declaration_digest: str
    yardsticks: bool
    through: datetime | None = Field(default=None, description="Last clock that is done.")
    runs: tuple[RunDone, ...] = ()
    every: tuple[EveryTraining, ...] = Field(default=(), description="By their clocks.")
    asked: tuple[AskedTraining, ...] = Field(default=(), description="Not trained yet.")
    yardstick_seconds: float = 0.0


def progress_name(model: str) -> str:
    """Where the progress of a model's replay is kept."""
    return f"replays/{model}/progress.json"


def result_name(model: str) -> str:
    """Where the result of a model's replay is kept."""
    return f"replays/{model}/result.json"


def read_progress(store: ArtifactStore, model: str) -> Progress | None:
    """The progress of a model's replay, if one was begun."""
    content = store.read_named(progress_name(model))
    return None if content is None else Progress.model_validate_json(content)


def write_progress(store: ArtifactStore, progress: Progress) -> None:
    """Keep the progress, in place of the one before."""
    store.write_named(progress_name(progress.model), progress.model_dump_json(indent=1).encode())
