"""Batch scoring of twelve months of flights, against ONNX Runtime with Parquet before and after.

    python benchmarks/batch_scoring.py [--frame FILE] [--rounds 5]

Both sides read the same stored frames, score the same batches with the same session options, and
write one compressed Parquet file per window. The platform's also checks, names and pins each row,
hashes what it writes, and makes it visible in one step. The target is at most 1.1 times.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from bare_lifecycle import MODEL, schema_of
from training import LABEL, TRAINED, build_frame

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.training import Training
from aios_platform.inference.batch import score_window
from aios_platform.inference.session import BATCH_ROWS, Session
from aios_platform.training.trainer import train

ROW_ID, TIME = "flight_id", "prediction_time"


def main() -> None:
    """Train briefly, then score with both sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frame", type=Path, help="Parquet file of a feature frame; else built")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    declared = yaml.safe_load((MODEL / "defs.yaml").read_text())["attributes"]
    frame = pq.read_table(arguments.frame) if arguments.frame else build_frame(declared)
    schema = schema_of(frame)
    frame = as_stored(frame, schema)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        training = Training.model_validate(declared.get("training", {}) | {"epochs": 1})
        past = frame.filter(pc.is_in(frame["window"], pa.array(TRAINED)))
        onnx = train(training, schema, past, label=LABEL, workdir=folder / "training").onnx
        store = ArtifactStore(str(folder / "artifacts"))
        columns = [ROW_ID, TIME, *schema.names]
        windows = sorted(pc.unique(frame["window"]).to_pylist())
        versions = [
            store.write(
                "frames",
                window,
                frame.filter(pc.equal(frame["window"], window)).select(columns),
            )
            for window in windows
        ]
        spent = {"bare": [], "platform": []}
        for number in range(arguments.rounds):
            begin = time.perf_counter(), time.process_time()
            bare(onnx, schema, versions, folder / f"bare-{number}")
            middle = time.perf_counter(), time.process_time()
            results = platform(onnx, store, versions, str(number))
            end = time.perf_counter(), time.process_time()
            spent["bare"].append((middle[0] - begin[0], middle[1] - begin[1]))
            spent["platform"].append((end[0] - middle[0], end[1] - middle[1]))
            compare(store, results, folder / f"bare-{number}")
    print(f"{frame.num_rows:,} rows, {len(schema.names)} features, {len(versions)} windows\n")
    print("| scoring | wall s | CPU s |\n|---|---|---|")
    medians = {
        name: [statistics.median(each[index] for each in runs) for index in (0, 1)]
        for name, runs in spent.items()
    }
    for name, (wall, cpu) in medians.items():
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |")
    ratios = [p / b for p, b in zip(medians["platform"], medians["bare"], strict=True)]
    print(f"| ratio (target 1.1) | {ratios[0]:.3f} | {ratios[1]:.3f} |")


def as_stored(frame: pa.Table, schema) -> pa.Table:
    """Numericals as float32, as feature frames are stored."""
    for name in schema.numerical:
        place = frame.column_names.index(name)
        frame = frame.set_column(place, name, frame[name].cast(pa.float32()))
    return frame


def platform(onnx, store, versions, number):
    """Score all windows through the platform, as a model version of its own."""
    session = Session(onnx)
    return [
        score_window(
            session,
            store.scan([version]),
            store,
            model="flight_delay",
            version=number,
            window=version.key,
            row_id=ROW_ID,
            prediction_time=TIME,
            inputs={version.dataset: version.digest},
        )
        for version in versions
    ]


def bare(onnx, schema, versions, folder) -> None:
    """The same by hand."""
    folder.mkdir()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    for version in versions:
        table = pq.read_table(version.uri)
        scores = []
        for batch in table.to_batches(max_chunksize=BATCH_ROWS):
            feeds = {
                name: batch[name].to_numpy(zero_copy_only=False).reshape(-1, 1)
                for name in schema.numerical
            }
            for name in schema.categorical:
                values = batch[name].fill_null("").to_numpy(zero_copy_only=False)
                feeds[name] = values.reshape(-1, 1)
            scores.append(session.run(None, feeds)[0])
        pq.write_table(
            table.select([ROW_ID, TIME]).append_column(
                "probability", pa.array(np.concatenate(scores))
            ),
            folder / f"{version.key}.parquet",
            compression="zstd",
            compression_level=1,
        )


def compare(store, results, folder) -> None:
    """Both sides must have written the same rows and probabilities."""
    for version in results:
        ours = store.read(version, [ROW_ID, "probability"])
        bare_table = pq.read_table(folder / f"{version.key}.parquet")
        gaps = np.abs(ours["probability"].to_numpy() - bare_table["probability"].to_numpy())
        # Batches end elsewhere where a file has several row groups, which moves the last bit.
        if not (ours[ROW_ID].equals(bare_table[ROW_ID]) and gaps.max() < 1e-6):
            raise SystemExit(f"the two sides differ in {version.key}")


if __name__ == "__main__":
    main()
