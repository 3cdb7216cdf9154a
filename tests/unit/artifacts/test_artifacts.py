import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.errors import ArtifactCorrupt, ArtifactMissing, StoreError

TABLE = pa.table({"id": [f"r{i}" for i in range(5000)], "x": [i / 7 for i in range(5000)]})


def test_what_is_written_is_read_back(store):
    version = store.write("m/raw/t", "2013-01", TABLE, inputs={"source": "abc"})
    assert version.rows == 5000
    assert version.version == 1
    assert store.read(version).equals(TABLE)
    assert store.keys("m/raw/t") == ["2013-01"]


def test_identical_content_is_the_same_version_and_changed_content_a_new_one(store):
    first = store.write("d", "k", TABLE, inputs={"source": "1"})
    again = store.write("d", "k", TABLE, inputs={"source": "2"})
    assert (again.version, again.digest, again.created_at) == (1, first.digest, first.created_at)
    changed = store.write("d", "k", TABLE.slice(1), inputs={"source": "3"})
    assert changed.version == 2
    assert [v.version for v in store.history("d", "k")] == [1, 2]
    assert store.read(store.history("d", "k")[0]).num_rows == 5000


def test_fresh_means_made_from_exactly_these_inputs(store):
    version = store.write("d", "k", TABLE, inputs={"source": "1"})
    assert store.fresh("d", "k", {"source": "1"}) == version
    assert store.fresh("d", "k", {"source": "2"}) is None
    Path(version.uri).unlink()
    assert store.fresh("d", "k", {"source": "1"}) is None


def test_a_stream_of_batches_gives_the_bytes_of_the_whole_table_in_as_many_rows(store):
    batches = (TABLE.slice(i, 1000) for i in range(0, 5000, 1000))
    version = store.write("d", "k", batches, schema=TABLE.schema)
    assert store.read(version).equals(TABLE)


def test_a_missing_dataset_is_a_clear_error(store):
    with pytest.raises(ArtifactMissing, match="no version for '2013-01'"):
        store.require("m/raw/t", "2013-01")


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "list"])
def test_damage_is_found_never_read(store, damage):
    version = store.write("d", "k", TABLE)
    path = Path(version.uri)
    content = bytearray(path.read_bytes())
    expected = ArtifactCorrupt
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 3] ^= 0xFF
        path.write_bytes(content)
    elif damage == "list":
        path.with_name("versions.json").write_text("[{")
        with pytest.raises(ArtifactCorrupt, match="cannot be read"):
            store.current("d", "k")
        return
    else:
        path.unlink()
        expected = ArtifactMissing
    with pytest.raises(expected):
        store.read(version)


def test_a_blob_is_verified_when_read(store):
    digest, uri = store.put(b"model", ".onnx")
    assert store.put(b"model", ".onnx") == (digest, uri)
    assert store.get(digest, ".onnx") == b"model"
    Path(uri).write_bytes(b"modem")
    with pytest.raises(ArtifactCorrupt, match="digest"):
        store.get(digest, ".onnx")


def test_a_full_disk_leaves_the_old_version_and_no_litter(tmp_path):
    store = ArtifactStore(str(tmp_path))
    before = store.write("d", "k", TABLE)
    script = textwrap.dedent(
        f"""
        import os, resource, signal
        import pyarrow as pa
        from aios_platform.artifacts import ArtifactStore
        from aios_platform.errors import StoreError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        table = pa.table({{"x": [os.urandom(8).hex() for _ in range(50_000)]}})
        try:
            ArtifactStore({str(tmp_path)!r}).write("d", "k", table)
        except StoreError as error:
            print("refused:", error)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "refused: Cannot write under" in done.stdout
    assert store.current("d", "k") == before
    assert store.read(before).equals(TABLE)
    assert not list(tmp_path.rglob(".writing-*"))


def test_a_read_only_root_is_a_clear_error(tmp_path):
    (tmp_path / "datasets").write_text("a file where a folder belongs")
    with pytest.raises(StoreError, match="Cannot write under"):
        ArtifactStore(str(tmp_path)).write("d", "k", TABLE)


def test_writers_of_different_windows_do_not_disturb_each_other(store):
    def write(number: int):
        return store.write("d", f"2013-{number:02}", TABLE.slice(number))

    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(write, range(1, 13)))
    assert len(store.keys("d")) == 12
    assert sum(table.num_rows for table in map(store.read, versions)) == sum(
        5000 - n for n in range(1, 13)
    )
