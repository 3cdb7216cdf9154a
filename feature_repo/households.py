"""Features of households that shop for groceries.

The SQL is `aios_platform/defs/household_spend/features/shopping.sql`; `docs/household_spend.md`
explains the features.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Float32
from feast.value_type import ValueType

household = Entity(name="household", value_type=ValueType.STRING, description="Number of a panel.")

shopping = FeatureView(
    name="shopping",
    entities=[household],
    # Each week's row holds for the week after it.
    ttl=timedelta(days=8),
    schema=[
        Field(name=name, dtype=Float32)
        for name in (
            "spend_1w",
            "spend_4w",
            "spend_12w",
            "basket_deviation_12w",
            "baskets_4w",
            "baskets_12w",
            "days_since_last",
            "days_since_first_12w",
            "products_per_basket_12w",
            "discount_share_12w",
            "fresh_share_12w",
            "own_brand_share_12w",
            "coupons_12w",
        )
    ],
    source=FileSource(
        name="shopping",
        path="aios://household_spend/features/shopping",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    ),
    tags={"model": "household_spend"},
)

household_spend_v1 = FeatureService(name="household_spend_v1", features=[shopping])
