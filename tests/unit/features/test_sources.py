"""Reading feature rows from files, folders, globs and datasets."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pad
import pyarrow.parquet as pq
import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.errors import ArtifactCorrupt, ArtifactMissing, FeatureError
from aios_platform.features.sources import (
    bound,
    dataset_files,
    instants,
    parquet_files,
    pinned,
    replaced,
)

MOMENT = datetime(2024, 5, 1, tzinfo=UTC)


def rows(*numbers: int) -> pa.Table:
    return pa.table({"n": pa.array(numbers, pa.int64()), "a.b c": [str(n) for n in numbers]})


def numbers(files: object, **_: object) -> list[int]:
    return files.table(["n"])["n"].to_pylist()  # type: ignore[attr-defined]


def test_a_file_a_folder_and_a_glob_read_alike(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    pq.write_table(rows(1, 2), tmp_path / "a.parquet")
    pq.write_table(rows(3), tmp_path / "deep" / "b.parquet")
    (tmp_path / ".writing-x").write_bytes(b"half a file")
    assert numbers(parquet_files(str(tmp_path / "a.parquet"))) == [1, 2]
    assert numbers(parquet_files(str(tmp_path))) == [1, 2, 3]
    assert numbers(parquet_files(str(tmp_path / "**" / "*.parquet"))) == [1, 2, 3]
    files = parquet_files(str(tmp_path))
    assert files.rows() == 3
    assert [t["a.b c"].to_pylist() for t in files.batches(["a.b c"], 2)] == [["1", "2"], ["3"]]


def test_nothing_at_the_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="no Parquet file at"):
        parquet_files(str(tmp_path / "nothing"))


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"n": pa.array(range(50_000), pa.int64())})
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    files = parquet_files(str(path))
    with pytest.raises(ArtifactCorrupt, match="cannot be read"):
        files.table(["n"])
    with pytest.raises(ArtifactCorrupt, match="cannot be read"):
        list(files.batches(["n"], 10_000))


def test_a_column_that_one_file_lacks_is_named(tmp_path: Path) -> None:
    pq.write_table(rows(1), tmp_path / "a.parquet")
    pq.write_table(rows(2).drop_columns(["a.b c"]), tmp_path / "b.parquet")
    with pytest.raises(FeatureError, match=r"b\.parquet .* has no column 'a\.b c'"):
        parquet_files(str(tmp_path)).require(["n", "a.b c"])


def test_row_groups_are_pruned_by_their_statistics(tmp_path: Path) -> None:
    pq.write_table(rows(*range(100)), tmp_path / "a.parquet", row_group_size=10)
    files = parquet_files(str(tmp_path / "a.parquet")).pruned(pad.field("n") >= 85)
    assert numbers(files) == list(range(80, 100))
    assert parquet_files(str(tmp_path / "a.parquet")).pruned(pad.field("n") > 500).rows() == 0


def test_a_dataset_means_the_current_versions_unless_pinned(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    old = store.write("m/features/f", "2024-01", rows(1))
    store.write("m/features/f", "2024-02", rows(2))
    store.write("m/features/f", "2024-01", rows(10))
    assert numbers(dataset_files(store, "m/features/f")) == [10, 2]
    with pinned([old]):
        assert numbers(dataset_files(store, "m/features/f")) == [1]
    pq.write_table(rows(7), tmp_path / "x.parquet")
    with replaced({"m/features/f": [str(tmp_path / "x.parquet")]}):
        assert numbers(dataset_files(store, "m/features/f")) == [7]
    assert numbers(dataset_files(store, "m/features/f")) == [10, 2]
    with pytest.raises(ArtifactMissing, match="has no window"):
        dataset_files(store, "m/features/g")


def test_times_are_compared_in_one_unit_and_zone() -> None:
    east = pa.array([MOMENT], pa.timestamp("ms", tz="Asia/Tokyo"))
    naive = pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("ns"))
    day = pa.array([MOMENT.date()], pa.date32())
    wanted = (MOMENT - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for values in (east, naive, day):
        assert instants(values, "ns", "t").to_pylist() == [wanted * 1000]
    far = pa.array([datetime(9999, 12, 31, tzinfo=UTC), None], pa.timestamp("us", tz="UTC"))
    future, missing = instants(far, "ns", "t").to_pylist()
    assert future > wanted * 1000
    assert missing is None
    with pytest.raises(FeatureError, match="'t' is of type string"):
        instants(pa.array(["2024-05-01"]), "us", "t")


def test_a_bound_is_comparable_with_its_column() -> None:
    for kind in (pa.timestamp("ns"), pa.timestamp("ms", tz="UTC"), pa.date32()):
        assert bound(MOMENT, kind).type == kind
