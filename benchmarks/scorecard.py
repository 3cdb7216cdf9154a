"""A logistic regression on real flights as a single-file ONNX model, in a second.

The planted candidates (`benchmarks/planted_candidates.py`) are made of it: small enough to train
a dozen in a test, and real in every respect that the gate looks at: trained, exported, scored by
ONNX Runtime from bytes.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from aios_platform.contracts.windows import WindowSchedule
from aios_platform.defs.flight_delay.source import read_window

LABEL, ROW_ID, WINDOW = "is_late", "flight_id", "window"
WEATHER = ("temperature", "humidity", "wind_speed", "precipitation", "pressure", "visibility")
YEAR = WindowSchedule(every="month", start="2013-01", end="2014-01", timezone="America/New_York")
BANDS = (-4.0, -2.0, 0.0, 2.0, 5.0, 10.0, 20.0, 40.0)


def frame_of(months: tuple[str, ...], *, one_in: int) -> pa.Table:
    """Labelled flights of some months with what was known an hour before their departure.

    Args:
        months: Window keys.
        one_in: Keep one flight in so many.
    """
    return pa.concat_tables([_month(month, one_in) for month in months])


def _month(month: str, one_in: int) -> pa.Table:
    tables = read_window(YEAR.window(month))
    flights = pl.from_arrow(tables["flights"])
    weather = pl.from_arrow(tables["weather"])
    # Mean delay of the departures of one hour from an airport: known once that hour is over.
    recent = (
        flights.filter(pl.col("departed_at").is_not_null())
        .group_by("origin", hour_of=pl.col("departed_at").dt.truncate("1h"))
        .agg(recent_delay=pl.col("departure_delay").mean())
        .with_columns(known_at=pl.col("hour_of") + pl.duration(hours=1))
        .sort("known_at")
    )
    asked = flights.filter(pl.col(LABEL).is_not_null()).gather_every(one_in)
    joined = (
        asked.sort("prediction_time")
        .join_asof(
            weather.select("origin", "known_at", "wind_gust", *WEATHER).sort("known_at"),
            left_on="prediction_time",
            right_on="known_at",
            by="origin",
            check_sortedness=False,
        )
        .join_asof(
            recent.select("origin", "known_at", "recent_delay"),
            left_on="prediction_time",
            right_on="known_at",
            by="origin",
            tolerance="3h",
            check_sortedness=False,
        )
        .with_columns(
            hour=(pl.col("minute_of_day") // 60).cast(pl.Int64).cast(pl.String),
            weekday=pl.col("day_of_week").cast(pl.Int64).cast(pl.String),
            band=pl.when(pl.col("recent_delay").is_not_null()).then(
                pl.format("b{}", pl.sum_horizontal(pl.col("recent_delay") > edge for edge in BANDS))
            ),
        )
        .with_columns(
            carrier_hour=pl.concat_str("carrier", "hour", separator=" "),
            carrier_band=pl.concat_str("carrier", "band", separator=" "),
            window=pl.lit(month),
        )
    )
    numbers = [*WEATHER, "wind_gust", "distance", "recent_delay"]
    texts = ["carrier", "origin", "destination", "hour", "weekday", "band"]
    return (
        joined.select(ROW_ID, LABEL, WINDOW, *texts, "carrier_hour", "carrier_band", *numbers)
        .sort(ROW_ID)
        .to_arrow(compat_level=pl.CompatLevel.oldest())
    )


@dataclass(frozen=True)
class Scorecard:
    """logit = intercept + the weight of each category + weight · (number - mean) / deviation.

    Attributes:
        intercept: Logit of a row about which nothing is known.
        categories: Weight of each value, by feature; an unknown value weighs 0.
        numbers: Weight, mean and deviation, by feature; a missing value weighs 0.
        stretch: The logit is multiplied by this (1: as trained).
        burn: Matrix products of 1024 by 1024 that change nothing.
        ballast: Numbers in the artifact that change nothing.
    """

    intercept: float
    categories: dict[str, dict[str, float]]
    numbers: dict[str, tuple[float, float, float]]
    stretch: float = 1.0
    burn: int = 0
    ballast: int = 0

    def predict(self, frame: pa.Table) -> np.ndarray:
        """Probabilities, shape (rows,), float64: what the ONNX artifact must reproduce."""
        logit = np.full(frame.num_rows, self.intercept)
        for name, weights in self.categories.items():
            values, which = coded(frame[name])
            logit += np.array([weights.get(value, 0.0) for value in values])[which]
        for name, (weight, mean, deviation) in self.numbers.items():
            values = frame[name].to_numpy().astype(np.float64)
            logit += weight * np.nan_to_num((values - mean) / deviation)
        return 1 / (1 + np.exp(-self.stretch * logit))

    def with_bonus(self, feature: str, value: str, bonus: float) -> "Scorecard":
        """The same with a constant added to the logit of one category."""
        weights = {**self.categories[feature]}
        weights[value] = weights.get(value, 0.0) + bonus
        return replace(self, categories={**self.categories, feature: weights})


def coded(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The values of a column, a missing one as '', and the place of each row's among them."""
    encoded = column.cast(pa.string()).fill_null("").combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


@dataclass
class _Graph:
    nodes: list = field(default_factory=list)
    inputs: list = field(default_factory=list)
    constants: list = field(default_factory=list)

    def add(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name


def fit(
    frame: pa.Table,
    *,
    categories: tuple[str, ...],
    numbers: tuple[str, ...] = (),
    labels: np.ndarray | None = None,
    penalty: float = 1.0,
) -> Scorecard:
    """Train on labelled rows.

    Args:
        frame: Rows with their features.
        categories: Features taken as categories.
        numbers: Features taken as numbers, standardised.
        labels: Other labels than the frame's own.
        penalty: Strength of the ridge penalty.
    """
    truth = frame[LABEL].to_numpy() if labels is None else labels
    blocks, values = [], {}
    for name in categories:
        values[name], which = coded(frame[name])
        shape = (truth.size, len(values[name]))
        blocks.append(
            sparse.csr_matrix((np.ones(truth.size), (np.arange(truth.size), which)), shape)
        )
    scales = {}
    for name in numbers:
        column = frame[name].to_numpy().astype(np.float64)
        scales[name] = (float(np.nanmean(column)), float(np.nanstd(column)))
        standard = np.nan_to_num((column - scales[name][0]) / scales[name][1])
        blocks.append(sparse.csr_matrix(standard[:, None]))
    model = LogisticRegression(C=1 / penalty, solver="newton-cholesky")
    model.fit(sparse.hstack(blocks).tocsr(), truth)
    weights = iter(model.coef_[0].tolist())
    return Scorecard(
        intercept=float(model.intercept_[0]),
        categories={name: {value: next(weights) for value in values[name]} for name in categories},
        numbers={name: (next(weights), *scales[name]) for name in numbers},
    )


def onnx_of(card: Scorecard) -> bytes:
    """The scorecard as a single-file ONNX model with one input per feature."""
    graph = _Graph()
    parts = [graph.constant("intercept", [[card.intercept]])]
    for name, weights in card.categories.items():
        graph.inputs.append(helper.make_tensor_value_info(name, TensorProto.STRING, ["rows", 1]))
        graph.nodes.append(
            helper.make_node(
                "LabelEncoder",
                [name],
                [f"{name}.weight"],
                domain="ai.onnx.ml",
                keys_strings=list(weights),
                values_floats=list(weights.values()),
                default_float=0.0,
            )
        )
        parts.append(f"{name}.weight")
    zero = graph.constant("zero", 0.0)
    for name, (weight, mean, deviation) in card.numbers.items():
        graph.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1]))
        scale = graph.constant(f"{name}.scale", weight / deviation)
        centred = graph.add("Sub", [name, graph.constant(f"{name}.mean", mean)], f"{name}.centred")
        scaled = graph.add("Mul", [centred, scale], f"{name}.scaled")
        absent = graph.add("IsNaN", [name], f"{name}.absent")
        parts.append(graph.add("Where", [absent, zero, scaled], f"{name}.present"))
    total = graph.add("Sum", parts, "total")
    logit = graph.add("Mul", [total, graph.constant("stretch", card.stretch)], "logit")
    logit = _burned(graph, card, logit)
    logit = _ballasted(graph, card, logit)
    column = graph.add("Sigmoid", [logit], "column")
    graph.add("Squeeze", [column, graph.constant("axis", [1], np.int64)], "probability")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "scorecard",
            graph.inputs,
            [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["rows"])],
            initializer=graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=10,
    )
    return bytes(model.SerializeToString())


def _burned(graph: _Graph, card: Scorecard, logit: str) -> str:
    """Matrix products whose sum is added times zero: time, and no difference."""
    if not card.burn:
        return logit
    # Of the first row only: one row is timed, and a batch need not take minutes.
    bounds = [graph.constant(f"bound.{place}", [place], np.int64) for place in (0, 1)]
    first = graph.add("Slice", [logit, *bounds], "first.row")
    wide = graph.add("Expand", [first, graph.constant("width", [1, 1024], np.int64)], "wide")
    shape = graph.constant("shape", [1024, 1024], np.int64)
    small = helper.make_tensor("small", TensorProto.FLOAT, [1], [1e-4])
    matrix = graph.add("ConstantOfShape", [shape], "matrix", value=small)
    for turn in range(card.burn):
        wide = graph.add("MatMul", [wide, matrix], f"wide.{turn}")
    mean = graph.add("ReduceMean", [wide, graph.constant("across", [1], np.int64)], "mean")
    nothing = graph.add("Mul", [mean, graph.constant("none", 0.0)], "nothing")
    return graph.add("Add", [logit, nothing], "burned")


def _ballasted(graph: _Graph, card: Scorecard, logit: str) -> str:
    if not card.ballast:
        return logit
    table = graph.constant("ballast", np.zeros(card.ballast))
    first = graph.add("Gather", [table, graph.constant("first", [0], np.int64)], "picked")
    return graph.add("Add", [logit, first], "ballasted")
