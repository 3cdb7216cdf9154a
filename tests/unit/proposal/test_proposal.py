"""What is proposed from data, and what is asked back."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from aios_platform.declarations import parse
from aios_platform.errors import DataError, DeclarationError
from aios_platform.proposal.profile import profile_of
from aios_platform.proposal.proposal import Wanted, propose, rendered
from aios_platform.proposal.writing import write

ROWS = 2_000


@pytest.fixture(scope="module")
def table():
    random = np.random.default_rng(0)
    size = random.lognormal(2, 1, ROWS)
    return pa.table(
        {
            "at": [datetime(2024, 1, 1) + timedelta(hours=2 * place) for place in range(ROWS)],
            "customer": [f"c{place}" for place in range(ROWS)],
            "size": pa.array(size, mask=random.random(ROWS) < 0.1),
            "count": random.integers(0, 9, ROWS),
            "colour": random.choice(["red", "blue"], ROWS),
            "same": ["x"] * ROWS,
            "nothing": pa.nulls(ROWS),
            "seen_at": [datetime(2024, 1, 1)] * ROWS,
            "image": pa.array(random.normal(size=(ROWS, 4)).tolist(), pa.list_(pa.float32())),
            "story": [f"Once upon a time there were {place} rows of data in a file " * 2
                      for place in range(ROWS)],
            "leak": (size > 8).astype(float),
            "large": size > 8,
            "kind": random.choice(["a", "b", "c"], ROWS),
            "price": size * 3,
        }
    )  # fmt: skip


def proposal_of(table, tmp_path, **wanted):
    pq.write_table(table, tmp_path / "data.parquet")
    path = str(tmp_path / "data.parquet")
    options = {"name": "orders", "path": path, "time": "at", "label": "large", "maturity_days": 2}
    asked = Wanted(**(options | wanted))
    return propose(profile_of(path, asked.time), asked)


def test_a_delta_table_is_proposed_from_as_a_file_is(table, tmp_path):
    deltalake = pytest.importorskip("deltalake")
    place = str(tmp_path / "orders")
    deltalake.write_deltalake(place, table.drop_columns(["nothing"]))
    options = {"name": "orders", "path": place, "time": "at", "label": "large"}
    asked = Wanted(**options, maturity_days=2, row_id="customer")
    declared = propose(profile_of(place, "at"), asked).declaration
    assert declared.source.stored["rows"].format == "delta"
    assert declared.source.tables["rows"].row_id == ("customer",)
    nameless = Path(place).with_name("nameless")
    deltalake.write_deltalake(str(nameless), table.select(["at", "size", "large"]))
    asked = Wanted(**options | {"path": str(nameless)}, maturity_days=2)
    with pytest.raises(DataError, match="no number"):
        propose(profile_of(str(nameless), "at"), asked)


def test_types_ranges_and_windows_are_those_of_the_data(table, tmp_path):
    found = proposal_of(table, tmp_path)
    declared = found.declaration
    assert declared.task == "binary_classification"
    assert (str(declared.windows.every), str(declared.windows.start)) == ("month", "2024-01-01")
    assert len(found.windows) == 6
    columns = declared.source.tables["rows"].columns
    assert {name: str(c.type) for name, c in columns.items()} == {
        "row_number": "string", "at": "timestamp", "customer": "string", "size": "float",
        "count": "int", "colour": "string", "image": "vector", "story": "text", "leak": "float",
        "kind": "string", "price": "float", "large": "bool", "label_known_at": "timestamp",
    }  # fmt: skip
    assert columns["size"].nullable
    assert not columns["count"].nullable
    assert (columns["count"].min, columns["count"].max) == (0, 12)
    assert columns["image"].length == 4
    assert declared.label.maturity_days == 2
    assert declared.training.network == "text_embedding"
    told = " ".join(found.warnings)
    assert "'same' is left out: it has one value only" in told
    assert "'nothing' is left out: it has no value" in told
    assert "'seen_at' is left out" in told
    assert "'leak' alone tells the label" in told
    assert declared.features.max_single_feature_auc == 1.0


def test_what_is_written_is_what_was_proposed(table, tmp_path):
    found = proposal_of(table, tmp_path)
    path = write(found, tmp_path)
    content = yaml.safe_load(path.read_text())
    assert content["type"] == "aios_platform.components.ModelLifecycle"
    assert parse(content["attributes"], path) == found.declaration
    assert rendered(found) == path.read_text()
    with pytest.raises(DeclarationError, match="There is a model 'orders' already"):
        write(found, tmp_path)
    assert path.read_text() == rendered(found), "nothing was overwritten"


@pytest.mark.parametrize(
    ("label", "task", "metric"),
    [
        ("kind", "multiclass_classification", "accuracy"),
        ("price", "regression", "r2"),
        ("count", "regression", "r2"),
    ],
)
def test_the_label_says_the_task(table, tmp_path, label, task, metric):
    declared = proposal_of(table, tmp_path, label=label).declaration
    assert (declared.task, declared.gate.metric) == (task, metric)
    if label == "kind":
        assert declared.answers.classes == ("a", "b", "c")


def test_a_task_that_is_named_goes_before_what_the_label_looks_like(table, tmp_path):
    task = "multiclass_classification"
    declared = proposal_of(table, tmp_path, label="count", task=task).declaration
    assert declared.answers.classes == tuple("012345678")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"label": "larg"}, "no column 'larg'. Did you mean 'large'"),
        ({"row_id": "custmer"}, "no column 'custmer'"),
        ({"label": "image"}, "is neither yes or no"),
    ],
)
def test_what_cannot_be_is_refused_with_the_nearest_name(table, tmp_path, wanted, message):
    with pytest.raises(DataError, match=message):
        proposal_of(table, tmp_path, **wanted)


def test_too_short_a_time_is_refused(table, tmp_path):
    with pytest.raises(DataError, match="lie in 3 windows of a day; at least 6"):
        proposal_of(table.slice(0, 30), tmp_path)


def test_a_file_without_times_or_rows_is_refused(table, tmp_path):
    pq.write_table(table, tmp_path / "data.parquet")
    with pytest.raises(DataError, match="holds no times"):
        profile_of(str(tmp_path / "data.parquet"), "customer")
    with pytest.raises(DataError, match="has no column 'att'"):
        profile_of(str(tmp_path / "data.parquet"), "att")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="has no rows"):
        profile_of(str(tmp_path / "empty.parquet"), "at")
    with pytest.raises(DataError, match="cannot be read"):
        profile_of(str(tmp_path / "none.parquet"), "at")
