import copy
from pathlib import Path

import pytest
from pydantic import ValidationError

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.reference import reference

MINIMAL = {
    "name": "toy",
    "owner": "team:toys",
    "windows": {"start": "2013-01"},
    "source": {
        "entrypoint": "toys.source:read_window",
        "rows": "toys",
        "prediction_time": "at",
        "tables": {
            "toys": {
                "row_id": ["id"],
                "timestamp": "at",
                "columns": {
                    "id": {"type": "string"},
                    "at": {"type": "timestamp"},
                    "size": {"type": "float", "min": 0},
                    "broke": {"type": "bool", "nullable": True},
                    "broke_at": {"type": "timestamp", "nullable": True},
                },
            }
        },
    },
    "features": {"service": "toy_v1", "request": ["size"]},
    "label": {"column": "broke", "known_at": "broke_at"},
}


def changed(path: str, value: object) -> dict:
    attributes = copy.deepcopy(MINIMAL)
    at = attributes
    *parents, last = path.split(".")
    for part in parents:
        at = at[part]
    at[last] = value
    return attributes


def test_a_minimal_declaration_has_sound_defaults():
    declaration = ModelDeclaration.model_validate(MINIMAL)
    assert declaration.exam.windows == 1
    assert declaration.gate.metric == "roc_auc"
    assert declaration.source.row_id == "id"
    assert declaration.source.max_quarantine_share == 0.01


@pytest.mark.parametrize(
    ("path", "value", "where", "message"),
    [
        ("ownr", "team:x", "", "unknown key 'ownr'.*Did you mean 'owner'"),
        ("owner", "nobody", "owner", "neither team:<name> nor an e-mail"),
        ("name", "Toy Model", "name", "match pattern"),
        ("source.rows", "toyz", "source", "not declared.*Did you mean 'toys'"),
        ("source.entrypoint", "toys.source", "source.entrypoint", "package.module:function"),
        ("source.prediction_time", "size", "source", "of type float; expected timestamp"),
        ("source.tables.toys.timestamp", "att", "tables.toys", "Did you mean 'at'"),
        ("source.tables.toys.row_id", ["idd"], "tables.toys", "Did you mean 'id'"),
        ("source.tables.toys.row_id", [], "source", "needs row_id"),
        ("source.tables.toys.columns.size.type", "floot", "size.type", "'string', 'int', 'float'"),
        ("source.tables.toys.columns.size.max", -1, "columns.size", r"min \(0.0\) is above max"),
        ("source.tables.toys.columns.at.min", 3, "columns.at", "int, float or vector only"),
        ("label.column", "brokn", "", "label.column.*Did you mean 'broke'"),
        ("label.column", "size", "", "expects bool"),
        ("features.request", ["sise"], "", "features.request.*Did you mean 'size'"),
        ("features.request", ["broke"], "", "contains the label's own column"),
        ("training", {"epochs": 0}, "training.epochs", "greater than or equal to 1"),
        ("training", {"network": "mlp"}, "training.network", "embedding_mlp"),
        ("training", {"validation_windows": 2}, "training", "leaves no window to train on"),
        ("gate", {"metric": "auc"}, "gate.metric", "roc_auc"),
        ("gate", {"floors": {"roc_auk": 0.7}}, "gate.floors", "roc_auc"),
        ("gate", {"margin": float("nan")}, "gate.margin", "finite|greater"),
    ],
)
def test_a_wrong_declaration_names_the_field_and_what_was_expected(path, value, where, message):
    with pytest.raises(ValidationError, match=f"(?s){message}") as caught:
        ModelDeclaration.model_validate(changed(path, value))
    first = caught.value.errors()[0]
    assert where in ".".join(str(part) for part in first["loc"])


def test_equal_declarations_have_equal_fingerprints_and_a_change_shows():
    one = ModelDeclaration.model_validate(MINIMAL)
    assert one.fingerprint == ModelDeclaration.model_validate(copy.deepcopy(MINIMAL)).fingerprint
    other = ModelDeclaration.model_validate(changed("gate", {"margin": 0.01}))
    assert one.fingerprint != other.fingerprint


def test_the_reference_page_is_what_the_types_say():
    page = Path(__file__).parents[3] / "docs" / "declaration.md"
    assert page.read_text() == reference(), f"run python -m {reference.__module__} > {page.name}"
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert not [row for row in rows if row.rstrip().endswith("|  |")], "a field has no description"
