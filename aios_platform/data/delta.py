"""Delta tables, read by delta-rs (extra `delta`), by a path or a URL of its own object stores."""

from pathlib import Path
from typing import TYPE_CHECKING

from aios_platform.profiles import require_extra

if TYPE_CHECKING:
    import pyarrow.dataset as pad

LOG = "_delta_log"


def is_delta(path: str) -> bool:
    """Whether a local folder is a Delta table; a URL is taken for none, and asked to be named."""
    return "://" not in path and (Path(path).expanduser() / LOG).is_dir()


def delta_table(path: str) -> "pad.Dataset":
    """The newest version of a Delta table.

    Files that a later version dropped are not read. Credentials of an object store are those that
    delta-rs finds in the environment (https://delta-io.github.io/delta-rs/, *Storage*).

    Args:
        path: Path, or a URL, e.g. s3://, gs://, abfss://.

    Raises:
        SettingsError: delta-rs is not installed.
        FileNotFoundError: There is no Delta table.
        OSError: It cannot be read, or needs what this reader lacks, e.g. deletion vectors.
    """
    require_extra("deltalake", "delta", "A Delta table")
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    place = path if "://" in path else str(Path(path).expanduser())
    try:
        return DeltaTable(place).to_pyarrow_dataset()
    except TableNotFoundError:
        raise FileNotFoundError(f"there is no Delta table at {path}") from None
    except (DeltaError, ValueError) as error:
        raise OSError(str(error).splitlines()[0]) from error
