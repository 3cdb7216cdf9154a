"""The images of scikit-learn as windows, through checks and features to a pinned frame."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

import aios_platform.defs.digits as package
from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.data.ingest import ingest_window
from aios_platform.defs.digits.source import IMAGES_PER_DAY, read_window
from aios_platform.errors import WindowRejected
from aios_platform.features.leakage import audit
from aios_platform.features.training_set import assemble

FOLDER = Path(package.__file__).parent
LATER = datetime(2024, 2, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def declaration():
    content = yaml.safe_load((FOLDER / "defs.yaml").read_text())
    return ModelDeclaration.model_validate(content["attributes"])


def test_every_image_is_in_exactly_one_window(declaration):
    keys = [f"2024-01-{day:02}" for day in range(1, 13)]
    found = [read_window(declaration.windows.window(key))["images"] for key in keys]
    ids = pa.concat_tables(found)["image_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 1797
    assert {table.num_rows for table in found[:-1]} == {IMAGES_PER_DAY}


def test_images_reach_the_training_frame_as_they_are(declaration, tmp_path):
    store = ArtifactStore(f"file://{tmp_path}")
    window = declaration.windows.window("2024-01-02")
    result = ingest_window(declaration, window, store, clock=lambda: LATER)
    assert result.quarantined_rows == 0
    assert not ingest_window(declaration, window, store, clock=lambda: LATER).changed

    frames = assemble(declaration, [window], LATER, store, None)  # there is no feature view
    table = store.read(frames.versions[0])
    delivered = read_window(window)["images"].sort_by("image_id")
    assert table["pixels"].type == pa.list_(pa.float32(), 64)
    assert np.array_equal(
        np.stack(table["pixels"].to_numpy()), np.stack(delivered["pixels"].to_numpy())
    )
    assert table["digit"].to_pylist() == delivered["digit"].to_pylist()

    early = assemble(declaration, [window], window.start + timedelta(hours=18), store, None)
    known = store.read(early.versions[0])["digit"]
    assert 0 < known.null_count < len(known), "a label counts once it is known"

    report = audit(declaration, FOLDER / "features", frames, store)
    assert report.passed
    assert report.nothing_joined


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ([0.0] * 63, "not of 64 elements"),
        ([0.0] * 63 + [float("nan")], "an element is not finite"),
        ([0.0] * 63 + [17.0], "an element is outside 0 to 16"),
        (None, "missing"),
    ],
)
def test_a_damaged_image_is_set_aside_and_many_reject_the_window(
    declaration, tmp_path, monkeypatch, vector, reason
):
    window = declaration.windows.window("2024-01-02")
    good = read_window(window)["images"]

    def deliver(damaged: int) -> None:
        pixels = good["pixels"].to_pylist()
        pixels[:damaged] = [vector] * damaged
        table = good.set_column(2, "pixels", pa.array(pixels, pa.list_(pa.float32())))
        monkeypatch.setattr(
            "aios_platform.defs.digits.source.read_window", lambda _: {"images": table}
        )

    store = ArtifactStore(f"file://{tmp_path}")
    deliver(1)
    result = ingest_window(declaration, window, store, clock=lambda: LATER)
    assert result.quarantined == {"images": 1}
    (bad,) = store.read(result.quarantine["images"])["quarantine_reason"].to_pylist()
    assert bad == f"pixels: {reason}"
    deliver(20)
    with pytest.raises(WindowRejected, match=f"pixels: {reason} in 20 rows"):
        ingest_window(declaration, window, store, clock=lambda: LATER)
