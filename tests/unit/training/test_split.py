"""Sides of a frame, read in pieces, hold exactly the labelled rows of their windows."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pad
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_platform.errors import TrainingError
from aios_platform.training.split import BATCH_ROWS, split_windows
from tests.unit.training.conftest import make_frame

ROW = st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from([True, False, None]))


def frame_of(rows):
    return pa.table(
        {
            "row": pa.array(range(len(rows)), pa.int64()),
            "window": pa.array([window for window, _ in rows], pa.string()),
            "late": pa.array([late for _, late in rows], pa.bool_()),
        }
    )


@given(st.lists(ROW, max_size=40), st.integers(1, 7))
def test_each_labelled_row_is_on_one_side_in_its_place(rows, chunk):
    # Both sides have both classes; windows come in any order and return.
    rows = [("a", True), ("c", False), *rows, ("c", True), ("a", False)]
    frame = pa.Table.from_batches(frame_of(rows).to_batches(max_chunksize=chunk))
    split = split_windows(frame, "late", "window", 1)

    assert split.validation.windows == ("c",)
    assert set(split.train.windows) == {w for w, late in rows if late is not None and w != "c"}
    for side in (split.train, split.validation):
        expected = [i for i, (w, late) in enumerate(rows) if w in side.windows and late is not None]
        assert side.select(["row"])["row"].to_pylist() == expected
        parts = list(side.batches(["row"]))
        assert pa.concat_tables(parts)["row"].to_pylist() == expected
        assert side.first(["row"], 3)["row"].to_pylist() == expected[:3]
        assert side.rows == len(expected)


def test_pieces_are_bounded_and_of_the_asked_columns_only():
    frame = make_frame(rows=BATCH_ROWS)
    side = split_windows(frame, "is_late", "window", 1).train
    sizes = [(part.num_rows, part.column_names) for part in side.batches(["delay"])]
    assert sum(rows for rows, _ in sizes) == side.rows
    assert all(rows <= BATCH_ROWS and names == ["delay"] for rows, names in sizes)


@pytest.mark.parametrize("kind", [pa.large_string(), pa.int32()])
def test_window_keys_keep_the_type_of_their_column(kind):
    frame = make_frame(rows=50)
    months = pc.cast(pc.utf8_slice_codeunits(frame["window"], 5), kind)
    frame = frame.set_column(frame.column_names.index("window"), "window", months)
    split = split_windows(frame, "is_late", "window", 1)
    assert split.train.rows + split.validation.rows == pc.count(frame["is_late"]).as_py()


def test_a_damaged_file_is_an_error_and_not_fewer_rows(tmp_path):
    frame = make_frame(rows=2_000)
    path = tmp_path / "frame.parquet"
    pq.write_table(frame, path, write_page_checksum=True, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(0).column(frame.column_names.index("delay"))
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(content)
    options = pad.ParquetFragmentScanOptions(page_checksum_verification=True)
    damaged = pad.dataset(
        str(path), format=pad.ParquetFileFormat(default_fragment_scan_options=options)
    )
    side = split_windows(damaged, "is_late", "window", 1).train

    assert np.isfinite(side.select(["distance"])["distance"].to_numpy()).all()
    for read in (
        lambda: side.select(["delay"]),
        lambda: list(side.batches(["delay"])),
        lambda: side.first(["delay"], 10),
    ):
        with pytest.raises(TrainingError, match="cannot be read"):
            read()
