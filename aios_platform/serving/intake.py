"""From a request to work for a deployment: its rows, decoded and checked."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aios_platform.errors import RequestRefused, ServingError
from aios_platform.serving.arrow_streams import arrow_columns
from aios_platform.serving.contract import Row
from aios_platform.serving.requests import (
    ARROW_TYPE,
    JSON_TYPES,
    Request,
    contract_of,
    deadline_of,
    tiers_of,
)
from aios_platform.serving.work import Work, moments_of

if TYPE_CHECKING:
    from aios_platform.serving.deployment import Deployment


def work_of(request: Request, deployment: "Deployment", request_id: str, arrived: float) -> Work:
    """The rows of a request, checked.

    Args:
        request: The request.
        deployment: What is to answer it.
        request_id: What the request is called.
        arrived: When it came, monotonic seconds.

    Raises:
        RequestRefused: They do not fit the contract, or are too many.
        Overloaded: The model's queue is full; nothing was decoded then.
    """
    if deployment.batcher.full:
        raise deployment.batcher.overloaded()
    serving = deployment.serving
    if request.content_type == ARROW_TYPE:
        columns = arrow_columns(request.body, serving.max_rows, deployment.shapes)
        return columnar_work(columns, request, deployment, request_id, arrived)
    if request.content_type not in JSON_TYPES:
        raise RequestRefused(
            "The body's type is not accepted.",
            code="unsupported_media_type",
            remedy="Send application/json or application/vnd.apache.arrow.stream.",
        )
    contract = contract_of(request, deployment.loaded.contracts, serving.contract.version)
    rows, single = contract.decode(request.body)
    if len(rows) > serving.max_rows:
        raise RequestRefused(
            f"The request has {len(rows):,} rows; at most {serving.max_rows:,} are taken.",
            code="too_many_rows",
            remedy="Send them in several requests.",
        )
    return Work(
        request_id,
        contract,
        rows,
        None,
        moments_of(rows, contract.moment, time.time()),
        [_name(row[contract.row_id]) for row in rows],
        arrived,
        deadline_of(request, serving, arrived),
        _nobody,
        single=single,
        tiers=tiers_of(request, serving, deployment.live.every_tier),
    )


def columnar_work(
    columns: Mapping[str, Any],
    request: Request,
    deployment: "Deployment",
    request_id: str,
    arrived: float,
) -> Work:
    """The work of a request that came as columns.

    Args:
        columns: Arrow arrays of equal length, by name.
        request: Its headers.
        deployment: What is to answer it.
        request_id: What the request is called.
        arrived: When it came, monotonic seconds.

    Raises:
        RequestRefused: The columns fit neither the contract nor the model.
    """
    serving = deployment.serving
    contract = contract_of(request, deployment.loaded.contracts, serving.contract.version)
    columnar = deployment.columnar[contract.version]
    now = time.time()
    rows: list[Row] | None = None
    frame = None
    if columnar.is_frame(set(columns)):
        frame = columnar.frame(columns)
        moments = columnar.moments(columns, now)
        ids: Sequence[str | None] = columnar.ids(columns) or [None] * len(moments)
    else:
        rows = columnar.rows(columns)
        moments = moments_of(rows, contract.moment, now)
        ids = [_name(row[contract.row_id]) for row in rows]
    return Work(
        request_id,
        contract,
        rows,
        frame,
        moments,
        ids,
        arrived,
        deadline_of(request, serving, arrived),
        _nobody,
        tiers=tiers_of(request, serving, deployment.live.every_tier),
    )


def part_of(whole: Work, first: int, rows: int) -> Work:
    """Some rows of a long request as one of their own, which arrives now.

    Args:
        whole: The request.
        first: Place of the first row.
        rows: How many rows, if there are so many.
    """
    chosen = slice(first, first + rows)
    frame = whole.frame
    now = time.monotonic()
    part = Work(
        whole.request_id,
        whole.contract,
        None if whole.rows is None else whole.rows[chosen],
        None if frame is None else (frame[0][chosen], [column[chosen] for column in frame[1]]),
        whole.moments[chosen],
        whole.ids[chosen],
        now,
        now + whole.deadline - whole.arrived,
        _nobody,
        tiers=whole.tiers,
    )
    part.places = range(first, first + part.count)
    return part


def _name(value: Any) -> str | None:
    return value if value is None else str(value)


def _nobody(_: Work) -> None:
    raise ServingError("A request has nobody to answer.", remedy="Report this as a defect.")
