"""Training, export and scoring of the flight-delay network as plain loops, for the bare scripts.

From the platform come the network and the arrays it eats (`aios_platform.training.networks`,
`.encoding`), so that both sides train the same function.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import torch

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.training import Training
from aios_platform.training.encoder import InputEncoder
from aios_platform.training.encoding import categorical_codes, fit_encoding, numerical_matrix
from aios_platform.training.ensemble import BinaryHead, CalibratedEnsemble
from aios_platform.training.networks import EmbeddingMLP

SCORING_BATCH = 8192
STEPS_PER_EPOCH = 50


def schema_of(frame: pa.Table) -> FeatureSchema:
    """Strings are categorical, the rest is numerical."""
    beside = {"flight_id", "prediction_time", "window", "is_late", "landed_at"}
    return FeatureSchema(
        fields=tuple(
            FeatureField(
                name=field.name,
                kind=FieldKind.CATEGORICAL
                if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
                else FieldKind.NUMERICAL,
                origin="frame",
            )
            for field in frame.schema
            if field.name not in beside
        )
    )


def train(frame, schema, declared, months: list[str], *, over_all: bool = False):
    """The platform's training as a plain loop: AdamW, one cycle, early stopping, Platt.

    Args:
        frame: Labelled rows with their `window`.
        schema: The features.
        declared: The declared training.
        months: Windows to take; the last ones are held out.
        over_all: Fit the intercept of the calibration over all rows, as the platform does; else
            on the held-out ones, as slope and intercept of a plain Platt fit.
    """
    settings = Training.model_validate(declared)
    held_out = settings.validation_windows
    parts = [
        frame.filter(pc.and_(pc.is_in(frame["window"], pa.array(keys)),
                             pc.is_valid(frame["is_late"])))
        for keys in (months[:-held_out], months[-held_out:])
    ]  # fmt: skip
    encoding = fit_encoding(parts[0], schema)
    encoder = InputEncoder(encoding)
    (x, c, y), (vx, vc, vy) = (
        (
            encoder.numerical.encode(numerical_matrix(part, schema)),
            torch.from_numpy(categorical_codes(part, schema, encoding.vocabularies)),
            torch.from_numpy(part["is_late"].to_numpy().astype(np.float32)),
        )
        for part in parts
    )
    batch = min(settings.batch_size, len(y) // STEPS_PER_EPOCH)
    networks, logits = [], []
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    for member in range(settings.members):
        torch.manual_seed(settings.seed + member)
        network = EmbeddingMLP(encoder.inputs, 1, settings)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=settings.learning_rate,
            total_steps=settings.epochs * -(-len(y) // batch),
            pct_start=0.1,
            div_factor=10,
            final_div_factor=100,
        )
        best, waited, weights, best_logits = float("inf"), 0, None, None
        for _ in range(settings.epochs):
            network.train()
            for rows in torch.randperm(len(y)).split(batch):
                optimizer.zero_grad()
                loss_of(network(x[rows], c[rows])[:, 0], y[rows]).backward()
                optimizer.step()
                schedule.step()
            network.eval()
            found = answers(network, vx, vc)
            loss = float(loss_of(found, vy))
            if loss < best:
                best, waited, best_logits = loss, 0, found
                weights = {name: value.clone() for name, value in network.state_dict().items()}
            else:
                waited += 1
                if waited >= settings.patience:
                    break
        network.load_state_dict(weights)
        networks.append(network.eval())
        logits.append(best_logits)
    mean = torch.stack(logits).mean(dim=0)
    slope, intercept = platt(mean, vy)
    if over_all:
        learnt = torch.stack([answers(network, x, c) for network in networks]).mean(dim=0)
        _, intercept = platt(slope * torch.cat([learnt, mean]), torch.cat([y, vy]), slope=1.0)
    return CalibratedEnsemble(encoder, networks, BinaryHead(slope, intercept)).eval(), encoding


def answers(network, x, c) -> torch.Tensor:
    """Logits of encoded rows."""
    with torch.inference_mode():
        batches = zip(x.split(SCORING_BATCH), c.split(SCORING_BATCH), strict=True)
        return torch.cat([network(*batch)[:, 0] for batch in batches])


def platt(logits, labels, slope: float | None = None) -> tuple[float, float]:
    """A logistic regression of the label on the logit; with a slope, of its intercept alone."""
    logits, labels = logits.clone().double(), labels.double()
    free = torch.tensor([1.0, 0.0][slope is not None :], dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        factor = free[0] if slope is None else slope
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits * factor + free[-1], labels
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    found = free.tolist()
    return (found[0] if slope is None else slope), found[-1]


def export(model, schema, path: Path) -> None:
    """The network as ONNX."""
    inputs = (
        torch.zeros((2, len(schema.numerical))),
        torch.zeros((2, len(schema.categorical)), dtype=torch.int64),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            inputs,
            str(path),
            dynamo=False,
            opset_version=20,
            input_names=["numerical", "categorical"],
            output_names=["probability"],
            dynamic_axes={n: {0: "rows"} for n in ("numerical", "categorical", "probability")},
        )


@dataclass(frozen=True)
class Scorer:
    """An exported network in ONNX Runtime, with what it takes to feed it."""

    session: onnxruntime.InferenceSession
    schema: FeatureSchema
    vocabularies: tuple[tuple[str, ...], ...]

    @classmethod
    def load(cls, path: Path, schema: FeatureSchema, encoding) -> "Scorer":
        """Open the exported network."""
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return cls(session, schema, encoding.vocabularies)

    def predict(self, frame: pa.Table) -> np.ndarray:
        """Probability of each row, shape (n,), float32."""
        numbers = numerical_matrix(frame, self.schema)
        codes = categorical_codes(frame, self.schema, self.vocabularies)
        return self.run(numbers, codes)

    def run(self, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Probability of each row of encoded arrays, in batches."""
        return np.concatenate(
            [
                self.session.run(None, {"numerical": numbers[i : i + SCORING_BATCH],
                                        "categorical": codes[i : i + SCORING_BATCH]})[0]
                for i in range(0, len(numbers), SCORING_BATCH)
            ]
        ).ravel()  # fmt: skip
