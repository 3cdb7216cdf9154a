"""Windows of the handwritten digits that come with scikit-learn: 1,797 real images of 8 x 8.

The images have no dates. Each is given an arrival time in the order of the file, in which the
writers follow each other, so that later windows hold other people's handwriting.
`docs/digits.md` says what follows from that.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.contracts.windows import Window
from aios_platform.errors import SourceError

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
IMAGES_PER_DAY = 150
LABELLED_AFTER = timedelta(hours=12)


def read_window(window: Window) -> Mapping[str, pa.Table]:
    """The table `images` of one window.

    Args:
        window: A window of arrival times, in UTC.

    Returns:
        Columns `image_id`, `arrived_at`, `pixels` (64 floats, 0 to 16), `digit` ("0" to "9") and
        `labelled_at`.

    Raises:
        SourceError: scikit-learn's images cannot be read.
    """
    images = _images()
    instant = pa.timestamp("us", "UTC")
    start, end = (pa.scalar(moment, instant) for moment in (window.start, window.end))
    times = images["arrived_at"]
    inside = pc.and_(pc.greater_equal(times, start), pc.less(times, end))
    return {"images": images.filter(inside)}


@cache
def _images() -> pa.Table:
    from sklearn.datasets import load_digits

    try:
        found = load_digits()
    except OSError as error:
        raise SourceError(
            f"The digits of scikit-learn cannot be read: {error}.",
            remedy="Install scikit-learn again: pip install --force-reinstall scikit-learn.",
        ) from error
    count = len(found.target)
    step = timedelta(days=1) / IMAGES_PER_DAY
    arrived = [FIRST_DAY + place * step for place in range(count)]
    instant = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "image_id": [f"digit-{place:04}" for place in range(count)],
            "arrived_at": pa.array(arrived, instant),
            "pixels": pa.array(list(found.data.astype(np.float32)), pa.list_(pa.float32())),
            "digit": [str(digit) for digit in found.target],
            "labelled_at": pa.array([moment + LABELLED_AFTER for moment in arrived], instant),
        }
    )
