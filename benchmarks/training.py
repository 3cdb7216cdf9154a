"""Training of the flight-delay model: quality beside other models, cost beside a plain loop.

    python benchmarks/training.py [--frame FILE] [--rounds 3]

Quality: trained on January to September (September held out for stopping and calibration; the
others learn from it, too), examined on October to December, on identical rows. Cost: the same
network through Lightning and through a plain loop, with a checkpoint after each epoch; the weights
must be equal to the bit.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import yaml
from bare_lifecycle import MODEL, join, schema_of, write_features, write_raw

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.training import Training
from aios_platform.inference.session import Session
from aios_platform.metrics import evaluate
from aios_platform.training.data import EVALUATION_BATCH, SlicedBatches, stream_seed
from aios_platform.training.encoder import InputEncoder, NumericalEncoding
from aios_platform.training.encoding import (
    categorical_codes,
    fit_encoding,
    numerical_matrix,
    raw_inputs,
)
from aios_platform.training.fit import Plan, fit_member
from aios_platform.training.module import one_cycle
from aios_platform.training.objective import Objective
from aios_platform.training.split import split_windows
from aios_platform.training.trainer import train

METRICS = ("roc_auc", "pr_auc", "log_loss", "brier", "ece")
LABEL = "is_late"
TRAINED = [f"2013-{month:02}" for month in range(1, 10)]
EXAM = ["2013-10", "2013-11", "2013-12"]


def main() -> None:
    """Run both comparisons and print them as tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frame", type=Path, help="Parquet file of a feature frame; else built")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-quality", action="store_true")
    arguments = parser.parse_args()
    declared = yaml.safe_load((MODEL / "defs.yaml").read_text())["attributes"]
    training = Training.model_validate(declared.get("training", {}))
    frame = pq.read_table(arguments.frame) if arguments.frame else build_frame(declared)
    schema = schema_of(frame)
    past = frame.filter(pc.is_in(frame["window"], pa.array(TRAINED)))
    exam = frame.filter(
        pc.and_(pc.is_in(frame["window"], pa.array(EXAM)), pc.is_valid(frame[LABEL]))
    )
    print(f"{past.num_rows:,} + {exam.num_rows:,} rows, {len(schema.names)} features\n")
    if not arguments.skip_quality:
        compare_quality(training, schema, past, exam)
    compare_cost(training, schema, past, arguments.rounds)


def build_frame(declared) -> pa.Table:
    """The frame as the bare script makes it: raw files, feature SQL, as-of joins."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_raw(folder)
        write_features(folder)
        return join(folder, declared["features"].get("request", []))


def compare_quality(training, schema, past, exam) -> None:
    """Metrics of the exam, one line per model."""
    truth = exam[LABEL].to_numpy(zero_copy_only=False)
    print("| model | " + " | ".join(METRICS) + " | seconds |\n|---|" + "---|" * 6)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        trained = train(training, schema, past, label=LABEL, workdir=Path(folder))
        seconds = time.perf_counter() - begin
    line("embedding MLP", evaluate(truth, Session(trained.onnx).predict(exam)), seconds)

    known = past.filter(pc.is_valid(past[LABEL]))
    encoding = fit_encoding(known, schema)
    labels = known[LABEL].to_numpy(zero_copy_only=False)
    raw, raw_exam = (
        np.column_stack(
            [
                numerical_matrix(part, schema),
                categorical_codes(part, schema, encoding.vocabularies).astype(np.float32),
            ]
        )
        for part in (known, exam)
    )
    for name, model, one_hot in references(len(schema.numerical), raw.shape[1]):
        begin = time.perf_counter()
        columns = (raw, raw_exam)
        if one_hot:
            encoder = NumericalEncoding(encoding)
            columns = tuple(
                np.column_stack([encoder.encode(x[:, : len(schema.numerical)]), one_hot_of(x)])
                for x in columns
                for one_hot_of in [one_hot.transform if x is raw_exam else one_hot.fit_transform]
            )
        model.fit(columns[0], labels)
        found = model.predict_proba(columns[1])[:, 1]
        line(name, evaluate(truth, found), time.perf_counter() - begin)
    line("base rate", evaluate(truth, np.full(truth.size, labels.mean())), 0)
    print()


def references(numerical: int, columns: int):
    """The models to compare with, and how each takes its columns."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    boosting = HistGradientBoostingClassifier(
        max_iter=300,
        learning_rate=0.05,
        min_samples_leaf=200,
        l2_regularization=1.0,
        categorical_features=list(range(numerical, columns)),
        random_state=0,
    )
    one_hot = make_column_transformer(
        (
            OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32),
            list(range(numerical, columns)),
        )
    )
    return [
        ("HistGradientBoosting, 300 iterations", boosting, None),
        ("logistic regression, same encoding", LogisticRegression(max_iter=200), one_hot),
    ]


def line(name, metrics, seconds) -> None:
    """One row of the table."""
    cells = [f"{metrics[key]:.4f}" for key in METRICS]
    print(f"| {name} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)


def compare_cost(training, schema, past, rounds) -> None:
    """CPU and wall seconds of one member, Lightning against a plain loop, interleaved."""
    split = split_windows(past, LABEL, "window", training.validation_windows)
    encoding = fit_encoding(split.train, schema)
    encoder = InputEncoder(encoding)
    objective = Objective(AnswerSchema())
    train_rows, validation_rows = (
        (
            *encoder.encode(raw_inputs(part, schema, encoding)),
            objective.targets(objective.truth(part[LABEL])),
        )
        for side in (split.train, split.validation)
        for part in [side.select([*schema.names, LABEL])]
    )
    spent = {"Lightning": [], "plain loop": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(
                training=training,
                objective=objective,
                inputs=encoder.inputs,
                train=train_rows,
                validation=validation_rows,
                folder=Path(folder),
                on_epoch=lambda _: None,
            )
            begin = time.perf_counter(), time.process_time()
            member = fit_member(plan, 0)
            middle = time.perf_counter(), time.process_time()
            weights = plain_loop(plan)
            end = time.perf_counter(), time.process_time()
        spent["Lightning"].append((middle[0] - begin[0], middle[1] - begin[1]))
        spent["plain loop"].append((end[0] - middle[0], end[1] - middle[1]))
        equal = all(torch.equal(w, weights[n]) for n, w in member.network.state_dict().items())
        if not equal:
            raise SystemExit("Lightning and the plain loop gave different weights")
    wall, cpu = (
        {name: statistics.median(each[index] for each in runs) for name, runs in spent.items()}
        for index in (0, 1)
    )
    print("| training loop | wall s | CPU s |\n|---|---|---|")
    for name in spent:
        print(f"| {name} | {wall[name]:.2f} | {cpu[name]:.2f} |")
    ratio = [values["Lightning"] / values["plain loop"] for values in (wall, cpu)]
    print(f"| ratio (target 1.05) | {ratio[0]:.3f} | {ratio[1]:.3f} |")
    print("\nWeights equal to the bit in every round.")


def plain_loop(plan) -> dict[str, torch.Tensor]:
    """The weights of the best epoch, by a loop that a person would write."""
    training = plan.training
    with torch.random.fork_rng():
        network = plan.network(0)
        seed = stream_seed(training.seed, 0)
        batches = SlicedBatches(plan.train, plan.batch_size, seed=seed)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        schedule = one_cycle(optimizer, training.epochs * len(batches))
        loss_of = torch.nn.functional.binary_cross_entropy_with_logits
        best, waited, weights = float("inf"), 0, {}
        for epoch in range(training.epochs):
            torch.manual_seed(stream_seed(seed, epoch))
            batches.set_epoch(epoch)
            network.train()
            for encoded, codes, labels in batches:
                loss = loss_of(network(encoded, codes)[:, 0], labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            network.eval()
            with torch.inference_mode():
                held_out = SlicedBatches(plan.validation, EVALUATION_BATCH)
                logits = torch.cat([network(x, c)[:, 0] for x, c, _ in held_out]).double()
            # As every training that can be taken up after a kill; Lightning's does it, too.
            state = {"network": network, "optimizer": optimizer, "schedule": schedule}
            plan.folder.mkdir(exist_ok=True)
            torch.save({k: v.state_dict() for k, v in state.items()}, plan.folder / "plain.pt")
            found = evaluate(
                plan.validation[2].numpy() > 0, torch.sigmoid(logits).numpy(), ["log_loss"]
            )["log_loss"]
            if found < best:
                best, waited = found, 0
                weights = {name: w.clone() for name, w in network.state_dict().items()}
            else:
                waited += 1
                if waited >= training.patience:
                    break
    return weights


if __name__ == "__main__":
    main()
