"""The gate's policy: what a candidate must show before it may become champion."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator, model_validator

from aios_platform.contracts.installed import check_installed
from aios_platform.contracts.record import Record, nearest
from aios_platform.extensions import Kind, installed

Share = Annotated[float, Field(ge=0, le=1)]
Task = Literal["binary_classification", "multiclass_classification", "regression"]
METRICS_BY_TASK: dict[Task, tuple[str, ...]] = {
    "binary_classification": (
        "roc_auc",
        "pr_auc",
        "log_loss",
        "brier",
        "ece",
        "ece_debiased",
        "reliability",
        "accuracy",
        "precision_at_1",
        "precision_at_2",
        "precision_at_5",
        "precision_at_10",
    ),
    "multiclass_classification": (
        "roc_auc",
        "log_loss",
        "brier",
        "ece",
        "ece_debiased",
        "reliability",
        "accuracy",
        "macro_f1",
    ),
    "regression": ("rmse", "mae", "r2"),
}
"""The metrics that each task has; a test holds them against `metrics.METRICS_OF`."""
METRIC_NAMES = tuple(dict.fromkeys(name for names in METRICS_BY_TASK.values() for name in names))


def _known(name: str) -> str:
    """One of the platform's metrics, or one that an installed package adds."""
    added = installed(Kind.METRIC)
    if name not in METRIC_NAMES and name not in added:
        names = (*METRIC_NAMES, *added)
        raise ValueError(
            f"there is no metric '{name}'. {nearest(name, names)} Known: {', '.join(names)}"
        )
    return name


Metric = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema({"anyOf": [{"enum": list(METRIC_NAMES)}, {"type": "string"}]}),
]
# Not `ece`: its bias hides the very difference the guard is to see (docs/gate_power.md).
# 0.001 is a model that is off by about 0.03 everywhere.
GUARDS: dict[Metric, float] = {"log_loss": 0.01, "reliability": 0.001}


class Approval(StrEnum):
    """Who says the last word on a candidate that the gate would promote."""

    AUTOMATIC = "automatic"
    HUMAN = "human"


class LinearBaseline(StrEnum):
    """What the comparison with a linear model of the same rows is for."""

    OFF = "off"
    NOTED = "noted"
    REQUIRED = "required"


class Slice(Record):
    """Rows judged by themselves: each value of a column, or each of its quantile bins."""

    column: str = Field(description="A feature of the model, or `window`: the exam's windows.")
    quantiles: int | None = Field(
        default=None, ge=2, le=20, description="Bins of equal mass; unset, one slice per value."
    )


class Protected(Record):
    """A protected attribute, and how differently its groups may be treated."""

    column: str = Field(description="A feature of the model whose values are the groups.")
    max_tpr_difference: Share = Field(
        default=0.1, description="Largest difference in true-positive rate between two groups."
    )
    max_selection_difference: Share = Field(
        default=0.1, description="Largest difference in selection rate between two groups."
    )


class AddedRule(Record):
    """A rule that an installed package adds (docs/how-to/extend.md)."""

    rule: str = Field(description="Its entry point in the group `aios_platform.gate_rules`.")
    columns: tuple[str, ...] = Field(
        default=(), description="Features of the model that it looks at; `window` is there always."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="What it is called with.")

    @field_validator("rule")
    @classmethod
    def _installed(cls, value: str) -> str:
        check_installed(Kind.GATE_RULE, value)
        return value

    @property
    def name(self) -> str:
        """The rule's name in verdicts and waivers."""
        return f"added_{self.rule}"


class Bootstrap(Record):
    """How the first champion is made: there is no baseline yet to compare it with."""

    approval: Approval | None = Field(
        default=None,
        description="automatic, or human: the first champion waits for an approver. Unset, as "
        "gate.approval.",
    )


class Gate(Record):
    """When a candidate may become champion."""

    metric: Metric = Field(
        default="roc_auc",
        description=f"Primary metric: {', '.join(METRIC_NAMES)}, or one of an installed package.",
    )
    floors: dict[Metric, float] = Field(
        default_factory=dict,
        description="Worst acceptable value per metric (an upper bound where less is better).",
    )
    margin: float = Field(
        default=0.005,
        ge=0,
        description="Non-inferiority margin: how much worse than the champion is tolerated, in "
        "units of the metric. 0 demands that a candidate is shown to be at least as good.",
    )
    guards: dict[Metric, float] = Field(
        default=GUARDS,
        description="Further metrics that must not get worse, each with its own margin.",
    )
    slices: tuple[Slice, ...] = Field(
        default=(Slice(column="window"),),
        description="Groups of rows on which the primary metric must not get worse either.",
    )
    slice_margin: float = Field(
        default=0.02, ge=0, description="Non-inferiority margin within a slice."
    )
    min_slice_rows: int = Field(
        default=500, ge=2, description="Smaller slices are shown, and not judged."
    )
    max_coverage_error: Share | None = Field(
        default=None,
        description="Largest |share of labels at most a quantile - its level| of a regression's "
        "declared quantiles; unset, it is shown and not judged.",
    )
    linear_baseline: LinearBaseline = Field(
        default=LinearBaseline.NOTED,
        description="A linear model is fitted to the candidate's training rows and compared on "
        "the exam: shown only, or the candidate must be shown to be better.",
    )
    protected: tuple[Protected, ...] = Field(
        default=(), description="Protected attributes, whose groups must be treated alike."
    )
    rules: tuple[AddedRule, ...] = Field(
        default=(), description="Rules of installed packages, all of which must pass, too."
    )
    decision_threshold: Share = Field(
        default=0.5, description="Probability at which a row counts as selected, for fairness."
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Of every interval.")
    resamples: int = Field(
        default=2000, ge=200, le=100_000, description="Resamples of the paired bootstrap."
    )
    min_rows: int = Field(default=1000, ge=2, description="Smallest exam that decides anything.")
    max_latency_ratio: float = Field(
        default=1.5,
        gt=0,
        description="Largest p95 latency of one row, in multiples of the champion's.",
    )
    max_latency_ms: float = Field(
        default=50.0, gt=0, description="Largest p95 latency of one row, milliseconds."
    )
    max_size_ratio: float = Field(
        default=2.0, gt=0, description="Largest artifact, in multiples of the champion's."
    )
    max_size_mib: float = Field(default=500.0, gt=0, description="Largest artifact, MiB.")
    max_exam_drift: Share = Field(
        default=0.8,
        description="Share of features whose PSI between training and exam is above "
        "monitoring.drift_psi, beyond which the exam says too little about the model.",
    )
    approval: Approval = Field(
        default=Approval.AUTOMATIC,
        description="automatic, or human: a promotion waits for an approver who is not the author.",
    )
    approval_days: float = Field(
        default=7.0, gt=0, description="An unanswered request for approval expires after this."
    )
    bootstrap: Bootstrap = Field(default=Bootstrap(), description="How the first champion is made.")

    @model_validator(mode="after")
    def _guards(self) -> "Gate":
        if self.metric in self.guards:
            raise ValueError(f"guards names the primary metric '{self.metric}'; use margin for it")
        wrong = sorted(name for name, margin in self.guards.items() if not margin >= 0)
        if wrong:
            raise ValueError(f"guards has a negative margin for {', '.join(wrong)}")
        for field, columns in (
            ("slices", [each.column for each in self.slices]),
            ("protected", [each.column for each in self.protected]),
            ("rules", [each.rule for each in self.rules]),
        ):
            twice = sorted({name for name in columns if columns.count(name) > 1})
            if twice:
                raise ValueError(f"{field} names {', '.join(twice)} more than once")
        return self

    @property
    def named(self) -> tuple[Metric, ...]:
        """Metrics that the policy looks at."""
        return tuple(dict.fromkeys((self.metric, *self.guards, *self.floors)))

    def check_task(self, task: Task) -> None:
        """Check that every metric of the policy is one that the task has.

        Raises:
            ValueError: One is not, or groups are protected and the task has no positive class.
        """
        known = METRICS_BY_TASK[task]
        for field, metrics in (
            ("metric", (self.metric,)),
            ("floors", tuple(self.floors)),
            ("guards", tuple(self.guards)),
        ):
            for metric in metrics:
                # An added one says its task when it is imported, which no declaration does.
                if metric in METRIC_NAMES and metric not in known:
                    raise ValueError(
                        f"gate.{field} names '{metric}', which {task} does not have. "
                        f"{nearest(metric, known)}"
                    )
        if self.max_coverage_error is not None and task != "regression":
            raise ValueError(f"gate.max_coverage_error belongs to regression; the task is {task}")
        if self.protected and task != "binary_classification":
            raise ValueError(f"gate.protected bounds rates of a positive class; {task} has none")
