"""Where a run came from: the commit and the libraries."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from aios_platform.settings import PROJECT_ROOT

LIBRARIES = (
    "aios-platform",
    "torch",
    "pytorch-lightning",
    "onnx",
    "onnxruntime",
    "numpy",
    "pyarrow",
    "feast",
    "mlflow",
)
NO_COMMIT = "not a git checkout"


@cache
def git_commit() -> str:
    """The checked-out commit, with `-dirty` when files differ from it."""
    command = ["git", "-C", str(PROJECT_ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return NO_COMMIT
    return done.stdout.strip() or NO_COMMIT


@cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that shape a model."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
