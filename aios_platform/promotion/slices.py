"""Slices of an exam: groups of rows by the values of a column, or by its quantile bins."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.contracts.policy import Slice
from aios_platform.errors import PromotionError
from aios_platform.promotion.rules import plain_name

MOST_SLICES = 50
MISSING = "missing"


@dataclass(frozen=True)
class Group:
    """Rows that are judged by themselves.

    Attributes:
        name: 'column=value'; for a bin 'column=q1', counted from the lowest.
        inside: Which rows belong to it, shape (n,), bool.
        meaning: What a bin covers, e.g. '80 to 502'; empty for a value.
    """

    name: str
    inside: NDArray[np.bool_]
    meaning: str = ""

    @property
    def rows(self) -> int:
        """How many rows belong to it."""
        return int(self.inside.sum())


@dataclass(frozen=True)
class Sliced:
    """The slices of one column.

    Attributes:
        groups: At most `MOST_SLICES`, the largest first.
        left_out: How many further values the column has.
        rows_left_out: Rows with those values.
    """

    groups: tuple[Group, ...]
    left_out: int
    rows_left_out: int


def slices_of(declared: Slice, values: ArrayLike) -> Sliced:
    """The slices of one column; rows without a value are the slice 'missing'.

    Args:
        declared: The column, and the number of quantile bins where it is binned.
        values: The column's value of each row, shape (n,).

    Raises:
        PromotionError: The column cannot be sliced as declared.
    """
    column = np.asarray(values)
    if column.ndim != 1 or not column.size:
        raise PromotionError(
            f"The column '{declared.column}' has the shape {column.shape}.",
            remedy="Give one value per row of the exam.",
        )
    absent = np.array([_absent(value) for value in column.tolist()])
    if declared.quantiles is None:
        groups = list(_by_value(declared.column, column, absent))
    else:
        groups = list(_by_quantile(declared.column, column, absent, declared.quantiles))
    if absent.any():
        groups.append(Group(f"{declared.column}={MISSING}", absent))
    groups.sort(key=lambda group: (-group.rows, group.name))
    rest = groups[MOST_SLICES:]
    return Sliced(tuple(groups[:MOST_SLICES]), len(rest), sum(group.rows for group in rest))


def _by_value(name: str, column: NDArray[np.generic], absent: NDArray[np.bool_]) -> Iterator[Group]:
    texts = np.array([_text(value) for value in column.tolist()], dtype=object)
    values, which = np.unique(texts.astype(str), return_inverse=True)
    for place, value in enumerate(values.tolist()):
        inside = (which == place) & ~absent
        if inside.any():
            yield Group(f"{name}={plain_name(value)}", inside)


def _by_quantile(
    name: str, column: NDArray[np.generic], absent: NDArray[np.bool_], bins: int
) -> Iterator[Group]:
    try:
        numbers = np.where(absent, np.nan, column).astype(np.float64)
    except (TypeError, ValueError):
        raise PromotionError(
            f"The column '{name}' has values that are not numbers: it has no quantiles.",
            remedy="Slice it by value, or take a numerical feature.",
        ) from None
    present = numbers[~absent]
    if not present.size:
        return
    inner = np.quantile(present, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf")
    # Equal values stay together: a column with few values has fewer bins.
    edges = np.unique(inner)
    which = np.searchsorted(edges, numbers, side="left")
    for place in range(edges.size + 1):
        inside = (which == place) & ~absent
        if inside.any():
            part = numbers[inside]
            yield Group(f"{name}=q{place + 1}", inside, f"{part.min():g} to {part.max():g}")


def _absent(value: object) -> bool:
    # NaN and NaT are not equal to themselves; a feature frame writes a missing text as ''.
    return value is None or value == "" or value != value


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    # A value that is spelt like the slice of rows without one.
    return f"'{value}'" if value == MISSING else str(value)
