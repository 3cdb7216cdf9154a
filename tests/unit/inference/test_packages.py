"""Serving packages are read as they were written, or not at all."""

import pytest

from aios_platform.contracts.packages import ServingPackage, TierFigures
from aios_platform.contracts.serving import TierModel
from aios_platform.errors import ArtifactCorrupt
from aios_platform.inference.packages import read_package, write_package
from tests.unit.training.conftest import schema_of

DIGEST = "a" * 64


def package(model="toy", digest=DIGEST):
    tier = TierFigures(
        model=TierModel.FULL, digest=digest, bytes=10, metrics={"roc_auc": 0.1 + 0.2},
        row_ms=0.1, batch_row_us=1.0, largest_difference=0.0,
    )  # fmt: skip
    return ServingPackage(
        model=model, model_digest=digest, service_digest="b" * 64, features=schema_of(("x",), ()),
        tiers=(tier,), exam_windows=("2013-04",),
    )  # fmt: skip


def test_what_was_written_is_read(store):
    assert read_package(store, "toy", DIGEST) is None
    write_package(store, package())
    assert read_package(store, "toy", DIGEST) == package()
    assert read_package(store, "toy", "c" * 64) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (package().model_dump_json().encode()[:-5], "cannot be read"),
        (b'{"model": "toy"}', "cannot be read"),
        (package(model="other").model_dump_json().encode(), "is about other"),
        (package(digest="d" * 64).model_dump_json().encode(), "is about toy dddddddddddd"),
    ],
    ids=["empty", "cut short", "incomplete", "another model", "other bytes"],
)
def test_a_document_that_is_damaged_or_misplaced_is_refused(store, content, message):
    store.write_named(f"serving/toy/{DIGEST}.json", content)
    with pytest.raises(ArtifactCorrupt, match=message) as caught:
        read_package(store, "toy", DIGEST)
    assert "aios package" in caught.value.remedy
