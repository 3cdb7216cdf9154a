"""The second reference of a window: the one before, or that of a year earlier."""

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.references import earlier_window
from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.declaration import ModelDeclaration
from tests.unit.contracts.test_declaration import MINIMAL

FEATURES = FeatureSchema(
    fields=(
        FeatureField(name="size", kind=FieldKind.NUMERICAL, origin="request"),
        FeatureField(name="shape", kind=FieldKind.CATEGORICAL, origin="request"),
    )
)


def model(tmp_path, reference, every="month", start="2013-01") -> Names:
    declared = MINIMAL | {
        "monitoring": {"reference": reference, "test_rows": 100},
        "windows": {"every": every, "start": start},
    }
    return Names(ModelDeclaration.model_validate(declared), tmp_path)


def keep(names, store, key, rows=500):
    frame = pa.table(
        {"id": [str(n) for n in range(rows)], "size": np.arange(rows) / 7, "shape": ["a"] * rows}
    )
    store.write(names.frames, key, frame)


@pytest.mark.parametrize(
    ("reference", "every", "key", "earlier"),
    [
        ("previous", "month", "2014-03", "2014-02"),
        ("season", "month", "2014-03", "2013-03"),
        ("season", "week", "2014-01-07", "2013-01-08"),
        ("season", "day", "2014-03-05", "2013-03-06"),
    ],
)
def test_the_declared_window_is_found(tmp_path, store, reference, every, key, earlier):
    names = model(tmp_path, reference, every, "2013-01-01")
    keep(names, store, earlier)
    found = earlier_window(names, store, key, FEATURES)
    assert found.label == f"{reference} ({earlier})"
    assert [bins.name for bins in found.bins.columns] == ["size", "shape"]
    assert found.bins.rows == 500
    assert found.sample.num_rows == 100
    assert found.sample.column_names == ["size", "shape"]
    # The bins are kept; the second time they are read.
    assert earlier_window(names, store, key, FEATURES).bins == found.bins


@pytest.mark.parametrize("reference", ["training", "previous", "season"])
def test_without_data_or_without_a_wish_there_is_none(tmp_path, store, reference):
    names = model(tmp_path, reference)
    if reference == "training":
        keep(names, store, "2013-01")
    assert earlier_window(names, store, "2013-02", FEATURES) is None
    assert earlier_window(names, store, "2013-01", FEATURES) is None
