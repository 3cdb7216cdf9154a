"""What a person is told without asking: an alert, its evidence, and what to do about it."""

import hashlib
import numbers
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field

from aios_platform.contracts.record import Record, canonical_json

PLATFORM = "platform"
"""Subject of what concerns no single model."""
RUNBOOK = "docs/runbook.md"
LONGEST_KEY = 200
LONGEST_SUMMARY = 500
LONGEST_EVIDENCE = 8_000


class AlertKind(StrEnum):
    """What happened; each has a section of the same name in the runbook."""

    DATA_FAULT = "data_fault"
    """A window differs in a way that only a broken feed explains."""
    WINDOW_REJECTED = "window_rejected"
    """A whole window is unusable; the last good version stays."""
    WINDOW_LATE = "window_late"
    """A window was not delivered in time."""
    LABELS_LATE = "labels_late"
    """A window has matured, and its labels are not there."""
    PREDICTIONS_LATE = "predictions_late"
    """A delivered window was not scored in time."""
    DEGRADATION = "degradation"
    """A degradation was confirmed, and a training asked for."""
    BUDGET_SPENT = "budget_spent"
    """A training is due, and the budget of trainings is spent."""
    RETRAINING_FAILED = "retraining_failed"
    """A training's run failed three times and was given up."""
    RUN_GIVEN_UP = "run_given_up"
    """Another run failed three times and was given up."""
    RUN_DIED = "run_died"
    """A run's process was killed; its work is asked for again."""
    ALIAS_TAMPERED = "alias_tampered"
    """Somebody moved MLflow's alias; it was put back."""
    CHAMPION_MISSING = "champion_missing"
    """The live version is gone from MLflow."""
    ROLLOUT_ABORTED = "rollout_aborted"
    """A candidate was taken off traffic; the live version stays."""
    ROLLED_BACK = "rolled_back"
    """The live version failed its callers soon after it went live, and was taken back."""
    VERSION_UNUSABLE = "version_unusable"
    """The gateway cannot load the version that is live; what served before goes on."""
    CLOCK_STEPPED_BACK = "clock_stepped_back"
    """The machine's clock went back: sensors would fall silent."""
    SECOND_DAEMON = "second_daemon"
    """A second scheduler daemon was started on the same database; it stands by."""
    RECORDS_LOST = "records_lost"
    """Served traffic could not be recorded; monitoring does not see it."""
    SERVING_SKEW = "serving_skew"
    """Served features are not those that the model was trained on."""
    DEAD_LETTERS = "dead_letters"
    """Messages of a model's queue cannot be scored."""
    ERROR_BUDGET = "error_budget"
    """A served model fails or is slow so often that its service level will not be kept."""
    TEST = "test"
    """Somebody tries the outputs out; nothing is wrong."""


class Severity(StrEnum):
    """How soon somebody should look."""

    WARNING = "warning"
    """Today: nothing wrong is served."""
    CRITICAL = "critical"
    """Now: something wrong or nothing is served, or will be."""


def one_line(value: Any) -> str:
    """Printable text in one line: safe as a header, in a log and on a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def short_key(value: Any) -> str:
    """A key that an index takes, however long it was; two keys stay two."""
    line = one_line(value)
    if len(line) <= LONGEST_KEY:
        return line
    digest = hashlib.sha256(line.encode()).hexdigest()
    return f"{line[: LONGEST_KEY - len(digest) - 1]}:{digest}"


def plain(value: Any) -> Any:
    """The nearest value that every JSON parser, and Postgres, can read.

    What raises an alert is in trouble already; odd evidence must not add to it.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, dict):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if abs(number) < float("inf") else str(number)
    return value.isoformat() if isinstance(value, date) else plain(str(value))


def _evidence(value: Any) -> Any:
    made = plain(value)
    # Read back from the store, what was cut off stays as it is.
    if isinstance(made, dict) and set(made) != {"cut_off"}:
        written = canonical_json(made)
        if len(written) > LONGEST_EVIDENCE:
            return {"cut_off": written[:LONGEST_EVIDENCE]}
    return made


def _summary(value: Any) -> str:
    line = one_line(value)
    return line if len(line) <= LONGEST_SUMMARY else f"{line[: LONGEST_SUMMARY - 1]}…"


Line = Annotated[str, BeforeValidator(one_line)]


class Alert(Record):
    """One thing that a person should know of."""

    kind: AlertKind
    subject: Line = Field(min_length=1, description="Name of a model, or 'platform'.")
    key: Annotated[str, BeforeValidator(short_key)] = Field(
        min_length=1,
        description="Same key, same cause: while it is open, nobody is told twice. "
        "E.g. 'data_fault:flight_delay:2013-09'.",
    )
    severity: Severity
    summary: Annotated[str, BeforeValidator(_summary)] = Field(
        min_length=1, description="One sentence."
    )
    evidence: Annotated[dict[str, Any], BeforeValidator(_evidence)] = Field(
        default_factory=dict, description="Figures, names and digests; JSON."
    )
    ledger_row: int | None = Field(default=None, description="The row that it rests on.")
    raised_at: AwareDatetime = Field(
        description="By the clock of the lifecycle; in a replay, in the past."
    )

    @property
    def runbook(self) -> str:
        """What to do: file and section."""
        return f"{RUNBOOK}#{self.kind}"


class RaisedAlert(Record):
    """One occurrence of an alert: from its first raising until it is resolved."""

    id: int
    alert: Alert = Field(description="With the newest summary and evidence.")
    count: int = Field(ge=1, description="How often it was raised while it was open.")
    first_seen: AwareDatetime = Field(description="By the clock of the database.")
    last_seen: AwareDatetime
    resolved_at: AwareDatetime | None = None
    resolved_by: str | None = None
    resolution: str | None = Field(default=None, description="Why it was resolved.")


class AlertBatch(Record):
    """One message: what one output is told about one subject at a time.

    Neither the id nor the content changes between attempts, so that a receiver can drop repeats.
    """

    id: str
    subject: Line
    composed_at: AwareDatetime
    alerts: tuple[RaisedAlert, ...] = Field(min_length=1, description="Critical ones first.")

    @property
    def headline(self) -> str:
        """The first alert in one line, and how many more there are."""
        first, more = self.alerts[0].alert, len(self.alerts) - 1
        rest = f" (and {more} more)" if more else ""
        return one_line(f"{first.severity}: {self.subject}: {first.summary}{rest}")
