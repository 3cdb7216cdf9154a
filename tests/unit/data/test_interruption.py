"""A full disk and kill -9 at every point where ingest makes something visible."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.conftest import SHOP, orders, prices, with_values

SOURCE = """
import os
from pathlib import Path
import pyarrow.parquet as pq


def read(window):
    folder = Path(__file__).parent / os.environ["SHOP_DELIVERY"]
    return {file.stem: pq.read_table(file) for file in sorted(folder.glob("*.parquet"))}
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("interrupted")
    (folder / "shop_source.py").write_text(SOURCE)
    (folder / "shop.json").write_text(json.dumps(SHOP))
    before = with_values(orders(), "amount", {5: -1.0})
    after = with_values(orders(), "amount", {3: 77.0, 8: -1.0, 9: -1.0})
    for name, table in {"before": before, "after": after}.items():
        (folder / name).mkdir()
        pq.write_table(table, folder / name / "orders.parquet")
        price = prices() if name == "before" else pa.concat_tables([prices(), prices()])
        price = with_values(price, "article", {i: f"new {i}" for i in range(3, len(price))})
        pq.write_table(price, folder / name / "prices.parquet")
    script = Path(__file__).with_name("interrupted.py")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(folder)],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


def named(told: list[dict], name: str) -> list[dict]:
    return [entry for entry in told if entry["name"] == name]


def test_the_calm_course_is_what_the_others_are_compared_with(told: list[dict]) -> None:
    (calm,) = named(told, "calm")
    assert calm["changed"]
    assert {name: [v[0], v[2]] for name, v in calm["state"].items()} == {
        "quarantine/prices": [1, 0],
        "quarantine/orders": [2, 2],
        "validation": [2, 2],
        "raw/prices": [2, 6],
        "raw/orders": [2, 38],
    }


def test_after_a_kill_every_dataset_is_whole_old_or_new(told: list[dict]) -> None:
    killed, seen = named(told, "killed"), named(told, "seen")
    deaths = [entry.get("signal") for entry in killed]
    assert deaths == [9] * 7 + [None]
    (calm,) = named(told, "calm")
    for entry in seen:
        for name, (version, digest, rows) in entry["state"].items():
            assert rows == {1: 3, 2: 6}[version] if name == "raw/prices" else rows >= 0
            assert (digest == calm["state"][name][1]) == (version == calm["state"][name][0])
    # The table of predicted rows comes last: while it is old, nobody is sent to new data.
    new_rows = [entry["state"]["raw/orders"][0] == 2 for entry in seen]
    assert new_rows == sorted(new_rows)


def test_the_same_call_after_a_kill_finishes_the_work(told: list[dict]) -> None:
    (calm,) = named(told, "calm")
    for finished, again in zip(named(told, "finished"), named(told, "again"), strict=True):
        assert finished["state"] == calm["state"]
        assert again["state"] == calm["state"]
        assert not again["changed"]


def test_a_full_disk_is_an_error_and_changes_nothing(told: list[dict]) -> None:
    (full,), (freed,), (calm,) = (named(told, n) for n in ("full", "freed", "calm"))
    assert "Cannot write under" in full["error"]
    assert "Free space" in full["error"]
    assert full["state"]["raw/orders"][::2] == [1, 39]
    assert full["state"]["raw/prices"][::2] == [1, 3]
    assert freed["state"] == calm["state"]
