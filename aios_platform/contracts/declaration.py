"""The declaration of a model: the one place from which its whole lifecycle is derived.

`docs/declaration.md` is the reference for people; this file is the reference for machines.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.features import Features
from aios_platform.contracts.files import Stored
from aios_platform.contracts.policy import Gate, Share, Task
from aios_platform.contracts.record import Record, nearest
from aios_platform.contracts.search import Search
from aios_platform.contracts.serving import Serving
from aios_platform.contracts.surveillance import Monitoring, Retrain
from aios_platform.contracts.training import Training
from aios_platform.contracts.windows import WindowSchedule

Identifier = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$"),
    Field(description="Lower-case letters, digits and underscores; begins with a letter."),
]

OWNER = re.compile(r"^(team:[A-Za-z0-9_. -]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")
ENTRYPOINT = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class ColumnType(StrEnum):
    """Types a column can be declared with."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    TIMESTAMP = "timestamp"
    VECTOR = "vector"
    """A fixed number of floats, e.g. the pixels of an image or an embedding."""
    TEXT = "text"
    """Free text, e.g. a log line; a `string` is the name of one of many kinds."""


class Column(Record):
    """One declared column of a source table, and what is true of every good value in it."""

    type: ColumnType = Field(
        description="string, int, float, bool, timestamp (UTC), vector or text."
    )
    nullable: bool = Field(default=False, description="May a value be missing?")
    min: float | None = Field(default=None, description="Smallest good value or element.")
    max: float | None = Field(default=None, description="Largest good value or element.")
    length: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Elements of a vector; required for one."
    )
    values: tuple[str, ...] | None = Field(
        default=None, description="The closed set of good values; unset, any."
    )
    known_at: str | None = Field(
        default=None,
        description="Timestamp column that says when this value became known; unset, the row's.",
    )

    @field_validator("values", mode="before")
    @classmethod
    def _texts(cls, values: Any) -> Any:
        """Dagster's templates make numbers of quoted ones, e.g. of the class "7"."""
        if not isinstance(values, list | tuple):
            return values
        return [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values]

    @model_validator(mode="after")
    def _range(self) -> "Column":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        if self.values is not None and self.type is not ColumnType.STRING:
            raise ValueError("values can be listed for columns of type string only")
        numeric = self.type in (ColumnType.INT, ColumnType.FLOAT, ColumnType.VECTOR)
        if (self.min is not None or self.max is not None) and not numeric:
            raise ValueError("min and max apply to columns of type int, float or vector only")
        if (self.length is not None) != (self.type is ColumnType.VECTOR):
            raise ValueError("length is given for columns of type vector, and for no others")
        return self


class Table(Record):
    """One table that the source delivers for each window."""

    columns: dict[str, Column] = Field(min_length=1, description="Exactly the delivered columns.")
    row_id: tuple[str, ...] = Field(
        default=(), description="Columns that together name a row; checked to be unique."
    )
    timestamp: str | None = Field(
        default=None,
        description="Event time; must lie in the window. Unset: a snapshot without event time.",
    )
    known_at: str | None = Field(
        default=None,
        description="Timestamp column that says when the row became known; unset, `timestamp`.",
    )
    min_rows: int = Field(default=1, ge=1, description="Fewer rows reject the window.")
    volume_tolerance: float | None = Field(
        default=0.5,
        gt=0,
        description="Largest relative difference from the median row count of recent windows.",
    )
    max_silence_hours: float | None = Field(
        default=None,
        gt=0,
        description="Freshness: largest gap between the newest row and the window's end.",
    )

    @model_validator(mode="after")
    def _references(self) -> "Table":
        named = [("timestamp", self.timestamp), ("known_at", self.known_at)]
        named += [("row_id", column) for column in self.row_id]
        named += [(f"columns.{n}.known_at", c.known_at) for n, c in self.columns.items()]
        for field, column in named:
            if column is not None and column not in self.columns:
                raise ValueError(
                    f"{field} names the column '{column}', which is not declared. "
                    f"{nearest(column, self.columns)}"
                )
            if column is not None and field != "row_id":
                found = self.columns[column].type
                if found is not ColumnType.TIMESTAMP:
                    raise ValueError(
                        f"{field} names the column '{column}' of type {found}; expected timestamp"
                    )
        return self


class Source(Record):
    """Where windows of data come from."""

    entrypoint: str | None = Field(
        default=None,
        description="`package.module:function`, called with a Window, "
        "returns a mapping of table name to pyarrow.Table.",
    )
    stored: dict[Identifier, Stored] = Field(
        default_factory=dict,
        description="In place of a function: where each table lies as files or in a database.",
    )
    tables: dict[Identifier, Table] = Field(min_length=1, description="The delivered tables.")
    rows: str = Field(description="The table whose rows are predicted.")
    prediction_time: str = Field(
        description="Timestamp column of that table: when the prediction is asked for. "
        "A feature may use only what was known by then."
    )
    max_quarantine_share: Share = Field(
        default=0.01, description="A larger share of quarantined rows rejects the window."
    )
    ask_again_hours: float = Field(
        default=24.0,
        gt=0,
        description="A window that was not delivered, or was refused, is asked for again so often.",
    )
    max_delay_hours: float = Field(
        default=48.0,
        gt=0,
        description="Later than this after its end, a window that is not there is an alert.",
    )

    @field_validator("entrypoint")
    @classmethod
    def _entrypoint(cls, value: str | None) -> str | None:
        if value is not None and not ENTRYPOINT.match(value):
            raise ValueError(f"'{value}' does not have the form package.module:function")
        return value

    @model_validator(mode="after")
    def _places(self) -> "Source":
        if (self.entrypoint is None) != bool(self.stored):
            raise ValueError("give either entrypoint or stored")
        if self.stored and set(self.stored) != set(self.tables):
            raise ValueError(
                f"stored names {sorted(self.stored)}; the declared tables are {sorted(self.tables)}"
            )
        for name, stored in self.stored.items():
            table = self.tables[name]
            added = [*([stored.row_number] if stored.row_number else []), *stored.known_after_days]
            for column in added:
                if column not in table.columns:
                    raise ValueError(
                        f"stored.{name} adds the column '{column}', which is not declared. "
                        f"{nearest(column, table.columns)}"
                    )
            if stored.known_after_days and table.timestamp is None:
                raise ValueError(f"stored.{name}.known_after_days needs the table's timestamp")
        return self

    @model_validator(mode="after")
    def _references(self) -> "Source":
        if self.rows not in self.tables:
            raise ValueError(
                f"rows names the table '{self.rows}', which is not declared. "
                f"{nearest(self.rows, self.tables)}"
            )
        table = self.tables[self.rows]
        if not table.row_id:
            raise ValueError(f"the table '{self.rows}' needs row_id, so that its rows have a name")
        if len(table.row_id) > 1:
            raise ValueError(f"row_id of the table '{self.rows}' must be a single column")
        column = table.columns.get(self.prediction_time)
        if column is None:
            raise ValueError(
                f"prediction_time names the column '{self.prediction_time}', which "
                f"'{self.rows}' does not declare. {nearest(self.prediction_time, table.columns)}"
            )
        if column.type is not ColumnType.TIMESTAMP:
            raise ValueError(
                f"prediction_time names the column '{self.prediction_time}' "
                f"of type {column.type}; expected timestamp"
            )
        return self

    @property
    def row_id(self) -> str:
        """The column that names a predicted row."""
        return self.tables[self.rows].row_id[0]


class Label(Record):
    """What the model learns, and when the truth becomes known."""

    column: str = Field(description="Column of the predicted table; null where there is no truth.")
    known_at: str = Field(description="Timestamp column: when the truth became known.")
    maturity_days: float = Field(
        default=1.0,
        ge=0,
        description="A window is matured this many days after its end: labels are then complete.",
    )
    corrections_windows: int = Field(
        default=1,
        ge=0,
        description="With the labels of each window that matures, those of so many windows before "
        "are read again; what came late or was corrected restates their figures.",
    )
    min_share: Share = Field(
        default=0.5,
        description="Share of a matured window's predictions that must have a label; fewer are "
        "an alert.",
    )


class Exam(Record):
    """The windows on which candidate and champion are compared; never trained on."""

    windows: int = Field(default=1, ge=1, description="The last n matured windows.")


LABEL_TYPES: dict[Task, tuple[ColumnType, ...]] = {
    "binary_classification": (ColumnType.BOOL,),
    "multiclass_classification": (ColumnType.STRING,),
    "regression": (ColumnType.FLOAT, ColumnType.INT),
}
"""Types that a label's column can have."""


class ModelDeclaration(Record):
    """One model, declared."""

    name: Identifier = Field(description="Prefix of its assets, datasets, jobs and sensors.")
    owner: str = Field(description="team:<name> or an e-mail address.")
    description: str = Field(default="", description="What the prediction is for.")
    task: Task = Field(
        default="binary_classification", description="What kind of answer the model gives."
    )
    automation: Literal["running", "stopped"] = Field(
        default="running",
        description="Whether its sensors and its schedule run from the start; stopped ones are "
        "started by hand in the web UI.",
    )
    windows: WindowSchedule = Field(description="The partitions in which data arrives.")
    source: Source = Field(description="Where windows of data come from.")
    features: Features = Field(description="What the model may look at.")
    label: Label = Field(description="What it learns, and when the truth becomes known.")
    training: Training = Field(default=Training(), description="How it is trained.")
    search: Search | None = Field(
        default=None, description="Training options that `aios tune` tries; unset, none."
    )
    exam: Exam = Field(default=Exam(), description="On what candidate and champion are compared.")
    gate: Gate = Field(default=Gate(), description="When a candidate may become champion.")
    monitoring: Monitoring = Field(default=Monitoring(), description="What is watched.")
    retrain: Retrain = Field(default=Retrain(), description="When to train again.")
    serving: Serving = Field(default=Serving(), description="How it answers in real time.")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, data: Any) -> Any:
        """A regression's gate looks at r2, whose margins need no unit, and guards nothing else."""
        if isinstance(data, dict) and data.get("task") == "regression":
            gate = data.get("gate", {})
            if isinstance(gate, dict):
                data = {**data, "gate": {"metric": "r2", "guards": {}, **gate}}
        return data

    @field_validator("owner")
    @classmethod
    def _owner(cls, value: str) -> str:
        if not OWNER.match(value):
            raise ValueError(f"'{value}' is neither team:<name> nor an e-mail address")
        return value

    @model_validator(mode="after")
    def _references(self) -> "ModelDeclaration":
        columns = self.source.tables[self.source.rows].columns
        for field, column in [
            ("label.column", self.label.column),
            ("label.known_at", self.label.known_at),
            *(("features.request", column) for column in self.features.request),
        ]:
            if column not in columns:
                raise ValueError(
                    f"{field} names the column '{column}', which the table "
                    f"'{self.source.rows}' does not declare. {nearest(column, columns)}"
                )
        truth = columns[self.label.column]
        expected = LABEL_TYPES[self.task]
        if truth.type not in expected:
            raise ValueError(
                f"label.column '{self.label.column}' is of type {truth.type}; "
                f"{self.task.replace('_', ' ')} expects {' or '.join(expected)}"
            )
        if self.task == "multiclass_classification" and len(truth.values or ()) < 2:
            raise ValueError(
                f"label.column '{self.label.column}' needs `values`: the classes, in their order"
            )
        if self.training.quantiles and self.task != "regression":
            raise ValueError(f"training.quantiles belong to regression; the task is {self.task}")
        if self.gate.max_coverage_error is not None and not self.training.quantiles:
            raise ValueError("gate.max_coverage_error needs training.quantiles")
        if columns[self.label.known_at].type is not ColumnType.TIMESTAMP:
            raise ValueError(
                f"label.known_at '{self.label.known_at}' is of type "
                f"{columns[self.label.known_at].type}; expected timestamp"
            )
        if self.search is not None:
            self.search.check(self.training)
        self.gate.check_task(self.task)
        self.serving.check_task(self.task)
        self.serving.check_inputs(frozenset(columns))
        if self.features.service is None and not self.features.request:
            raise ValueError("features needs a service, or request columns")
        leaked = {self.label.column, self.label.known_at} & set(self.features.request)
        if leaked:
            raise ValueError(f"features.request contains the label's own column {sorted(leaked)}")
        return self

    @property
    def answers(self) -> AnswerSchema:
        """What the model answers per row."""
        classes = self.source.tables[self.source.rows].columns[self.label.column].values
        return AnswerSchema(
            task=self.task,
            classes=classes or () if self.task == "multiclass_classification" else (),
            quantiles=self.training.quantiles,
        )
