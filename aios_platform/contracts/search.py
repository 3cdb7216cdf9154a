"""The `search` section of a declaration: which training options are tried, and how often."""

import json
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from aios_platform.contracts.record import Record, nearest
from aios_platform.contracts.training import Training

SEARCHABLE = (
    "hidden",
    "dropout",
    "epochs",
    "patience",
    "batch_size",
    "learning_rate",
    "weight_decay",
)
"""Options of `training` that a search may vary, beside those of the network."""
OPTIONS = "network_options."
INTEGERS = ("epochs", "patience", "batch_size")


class Dimension(Record):
    """The values of one option: a range, or choices."""

    low: int | float | None = Field(default=None, description="Smallest value of a range.")
    high: int | float | None = Field(default=None, description="Largest value of a range.")
    log: bool = Field(default=False, description="Whether the range is searched on a log scale.")
    choices: tuple[Any, ...] = Field(default=(), description="The values, where it is no range.")

    @model_validator(mode="after")
    def _one_kind(self) -> "Dimension":
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give choices, or low and high; not both")
            if len({json.dumps(choice) for choice in self.choices}) < max(2, len(self.choices)):
                raise ValueError("choices needs two values or more, each once")
        elif self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        elif self.low >= self.high:
            raise ValueError(f"low ({self.low}) is not below high ({self.high})")
        elif self.log and self.low <= 0:
            raise ValueError(f"on a log scale low ({self.low}) must be above 0")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all: the choices, or both ends of the range."""
        return self.choices or (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        if self.choices:
            return json.dumps(value) in {json.dumps(choice) for choice in self.choices}
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high  # type: ignore[operator]


class Search(Record):
    """What `aios tune` tries; the declared values are its first trial."""

    trials: int = Field(ge=2, le=10_000, description="How many; pruned and diverged ones count.")
    space: dict[str, Dimension] = Field(
        min_length=1,
        description="Values by option: hidden, dropout, epochs, patience, batch_size, "
        "learning_rate, weight_decay, or `network_options.<name>`.",
    )
    pruner: Literal["median", "none"] = Field(
        default="median",
        description="median: a trial ends when after an epoch it is worse than the median of the "
        "trials before it.",
    )
    startup_trials: int = Field(
        default=5, ge=1, description="Trials at random, none pruned, before the search is guided."
    )

    def check(self, training: Training) -> None:
        """Check that the space fits what is declared.

        Args:
            training: The declared training.

        Raises:
            ValueError: An option cannot be searched, a value of it is no valid one, or the
                declared one is not in the space.
        """
        for name, dimension in self.space.items():
            if name not in SEARCHABLE and not (name.startswith(OPTIONS) and name != OPTIONS):
                raise ValueError(
                    f"search.space names '{name}', which cannot be searched. "
                    f"{nearest(name, (*SEARCHABLE, f'{OPTIONS}<name>'))}"
                )
            for value in dimension.ends:
                try:
                    with_values(training, {name: value})
                except ValidationError as error:
                    raise ValueError(
                        f"search.space.{name} holds {value!r}: {error.errors()[0]['msg']}"
                    ) from None
        missing = [name for name in self.space if declared_value(training, name) is None]
        if missing:
            raise ValueError(
                f"search.space names '{missing[0]}', which training does not declare: the declared "
                "values are the search's first trial"
            )
        for name, dimension in self.space.items():
            value = declared_value(training, name)
            if not dimension.holds(value):
                raise ValueError(
                    f"search.space.{name} does not hold the declared {json.dumps(value)}, which is "
                    "the search's first trial"
                )


def is_integer(name: str, dimension: Dimension) -> bool:
    """Whether a range is one of whole numbers."""
    if name.startswith(OPTIONS):
        return isinstance(dimension.low, int) and isinstance(dimension.high, int)
    return name in INTEGERS


def declared_value(training: Training, name: str) -> Any:
    """The declared value of an option, as JSON has it; None: it is not declared."""
    said = training.model_dump(mode="json")
    option = name.removeprefix(OPTIONS)
    return said[name] if option == name else said["network_options"].get(option)


def with_values(training: Training, values: dict[str, Any]) -> Training:
    """The training with other values of some options.

    Args:
        training: The declared training.
        values: By the names that `search.space` uses.

    Raises:
        ValidationError: One is not valid.
    """
    own = {name: value for name, value in values.items() if not name.startswith(OPTIONS)}
    options = {n.removeprefix(OPTIONS): v for n, v in values.items() if n.startswith(OPTIONS)}
    said = training.model_dump()
    return Training.model_validate(
        said | own | {"network_options": said["network_options"] | options}
    )
