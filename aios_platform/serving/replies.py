"""Answers as callers get them: JSON, or Arrow for a columnar request."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.answers import PREDICTED, AnswerSchema
from aios_platform.contracts.serving import Hop
from aios_platform.metrics.truth import by_column
from aios_platform.serving.problems import MEDIA_TYPE, Problem
from aios_platform.serving.work import Work

JSON = b"application/json"
ARROW = b"application/vnd.apache.arrow.stream"
NDJSON = b"application/x-ndjson"
# The end of an Arrow IPC stream.
END = b"\xff\xff\xff\xff\0\0\0\0"
SETS: tuple[list[bool], ...] = ([], [False], [True], [False, True])
ABSTAINED = "abstained"
FALLBACKS = frozenset(hop.value for hop in Hop)

_encode = msgspec.json.Encoder().encode


class Reply(NamedTuple):
    """One HTTP answer."""

    status: int
    content_type: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def problem_reply(problem: Problem, request_id: str) -> Reply:
    """A problem as a reply."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if problem.retry_after is not None:
        headers = ((b"retry-after", str(int(np.ceil(problem.retry_after))).encode()),)
    if problem.status == 401:
        headers = (*headers, (b"www-authenticate", b"Bearer"))
    return Reply(problem.status, MEDIA_TYPE, problem.body(request_id), headers)


def columns_by_name(scores: NDArray[np.float32], answers: AnswerSchema) -> dict[str, Any]:
    """Answers column by column; of several classes, the likeliest one's name comes last.

    Args:
        scores: Shape (rows,) or (rows, answer columns), float32.
        answers: What they are.
    """
    found: dict[str, Any] = dict(by_column(scores, answers))
    if answers.classes:
        found[PREDICTED] = [answers.classes[place] for place in scores.argmax(axis=1).tolist()]
    return found


class Replies:
    """Writes the answers of one deployment of a model.

    Args:
        model: Name of the model.
        service_digest: Of the feature service that its inputs come from.
        safe_default: What an abstention answers.
        row_id: What the caller calls a row's name.
        answers: What the model answers; unset, a probability.
    """

    def __init__(
        self,
        model: str,
        service_digest: str,
        safe_default: float | None,
        row_id: str,
        answers: AnswerSchema | None = None,
    ) -> None:
        self._answers = answers or AnswerSchema()
        self._binary = self._answers.task == "binary_classification"
        self._model = model
        self._digest = service_digest
        self._safe = safe_default
        self._row_id = row_id
        self._openings: dict[tuple[str, int], bytes] = {}

    def json(self, work: Work) -> Reply:
        """A request's answers as one JSON document."""
        rows = list(self.rows(work))
        if work.single:
            name, content = b',"prediction":', _encode(rows[0])
        else:
            name, content = b',"predictions":', _encode(rows)
        parts = (self._opening(work), _encode(work.request_id), name, content, b"}")
        return Reply(200, JSON, b"".join(parts))

    def _opening(self, work: Work) -> bytes:
        """What the replies of a version begin with, up to the request's own name."""
        key = ((work.served_by or work.version).version, work.contract.version)
        opening = self._openings.get(key)
        if opening is None:
            head = {"model": self._model, **self._head(work)}
            named = _encode({**head, "request_id": ""})
            opening = self._openings[key] = named.removesuffix(b'""}')
        return opening

    def _head(self, work: Work) -> dict[str, Any]:
        return {
            "version": (work.served_by or work.version).version,
            "contract": work.contract.version,
            "features": self._digest,
            "request_id": work.request_id,
        }

    def rows(self, work: Work) -> Iterator[dict[str, Any]]:
        """The answer of each row."""
        probabilities = work.probabilities.tolist()
        sources = work.sources
        ids, sets, unsure = work.ids, work.sets, work.unsure
        ages = None if work.ages is None else work.ages.tolist()
        for place, probability in enumerate(probabilities):
            source = sources[place]
            answer: dict[str, Any]
            if self._binary:
                answer = {"probability": probability, "source": source}
            else:
                answer = {**self._told(probability), "source": source}
            if source in FALLBACKS:
                answer["fallback"] = True
            elif source == "cache":
                answer["cached"] = True
            if sets is not None and source not in FALLBACKS:
                answer["labels"] = SETS[sets[place]]
            if unsure is not None and unsure[place]:
                answer["probability"] = self._safe
                answer["source"] = ABSTAINED
                answer["abstained"] = True
            if ages is not None and ages[place] == ages[place]:
                answer["feature_age_seconds"] = round(ages[place], 3)
            if ids[place] is not None:
                answer[self._row_id] = ids[place]
            if work.versions is not None:
                answer["version"] = work.versions[place]
            yield answer

    def _told(self, scores: Any) -> dict[str, Any]:
        """An answer of several classes, or of a number.

        Args:
            scores: The answer columns of one row; a number where there is one.
        """
        answers = self._answers
        if answers.classes:
            most = max(scores)
            return {
                PREDICTED: answers.classes[scores.index(most)],
                "probability": most,
                "probabilities": dict(zip(answers.classes, scores, strict=True)),
            }
        if answers.flat:
            return {"value": scores}
        levels = (f"{level:g}" for level in answers.quantiles)
        return {"value": scores[0], "quantiles": dict(zip(levels, scores[1:], strict=True))}

    def arrow(self, work: Work) -> Reply:
        """A request's answers as an Arrow IPC stream: a row per row, in their order."""
        import pyarrow as pa

        probabilities = work.probabilities
        sources: list[str] = list(work.sources)
        abstained = np.zeros(work.count, dtype=bool) if work.unsure is None else work.unsure
        if abstained.any():
            probabilities = np.where(abstained, np.float32(self._safe or 0), probabilities)
            for row in np.flatnonzero(abstained):
                sources[row] = ABSTAINED
        columns: dict[str, Any] = {
            **columns_by_name(probabilities, self._answers),
            "source": pa.array(sources, pa.string()),
            "abstained": pa.array(abstained),
        }
        if work.sets is not None:
            # What a fallback answered has none.
            hops = np.array([source in FALLBACKS for source in work.sources])
            columns["negative"] = pa.array((work.sets & 1).astype(bool), mask=hops)
            columns["positive"] = pa.array((work.sets & 2).astype(bool), mask=hops)
        if work.ages is not None:
            columns["feature_age_seconds"] = pa.array(work.ages, from_pandas=True)
        if work.ids.count(None) < work.count:
            columns[self._row_id] = pa.array(work.ids, pa.string())
        if work.versions is not None:
            columns["version"] = pa.array(work.versions, pa.string())
        described = {"model": self._model, **self._head(work)}
        metadata = {f"aios.{key}": str(value) for key, value in described.items()}
        batch = pa.record_batch(columns, metadata=metadata)
        # What pyarrow's writer makes of it, at a third of the cost.
        parts = (batch.schema.serialize(), batch.serialize())
        return Reply(200, ARROW, b"".join([*(part.to_pybytes() for part in parts), END]))
