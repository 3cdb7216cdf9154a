"""Labelled rows of stored windows: few enough to fit and score in a second, the same every time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from aios_platform.artifacts import ArtifactStore
    from aios_platform.contracts.datasets import DatasetVersion

MOST_ROWS = 10_000
"""Enough for two digits of a quantile, a coverage or a metric."""


def labelled_sample(
    store: "ArtifactStore", frames: "Sequence[DatasetVersion]", columns: Sequence[str], label: str
) -> "pa.Table":
    """At most `MOST_ROWS` labelled rows, of every window alike.

    Args:
        store: Where the windows are.
        frames: Their versions.
        columns: Columns to read besides the label's.
        label: Column of the label.

    Raises:
        ArtifactMissing: A window is gone.
        ArtifactCorrupt: A window's bytes are not what was written.
    """
    import pyarrow as pa

    from aios_platform.monitoring.sampling import sample
    from aios_platform.promotion.exam import labelled

    return pa.concat_tables(
        sample(labelled(store.read(version, [*columns, label]), label), MOST_ROWS // len(frames))
        for version in frames
    )
