"""Where a run came from: the commit, the source files, the libraries."""

import hashlib
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aios_platform.settings import PROJECT_ROOT, settings

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


def source_digests(model_folder: Path, sql_folder: Path) -> dict[str, str]:
    """SHA-256 over the files that shape a model; a tarball of the sources has no commit.

    Args:
        model_folder: The model's folder under `defs/`: declaration, source, feature SQL.
        sql_folder: Folder of its feature SQL, which another package may have.

    Returns:
        `platform` (the package without its models), `model`, `feature_repo`, and `feature_sql`
        where it lies elsewhere.
    """
    package = PROJECT_ROOT / "aios_platform"
    models = package / "defs"
    platform = [path for path in _sources(package) if not path.is_relative_to(models)]
    elsewhere = not sql_folder.is_relative_to(model_folder)
    return {
        "platform": _digest(package, platform),
        "model": _digest(model_folder, _sources(model_folder)),
        "feature_repo": _digest(settings().feature_repo, _sources(settings().feature_repo)),
        **({"feature_sql": _digest(sql_folder, _sources(sql_folder))} if elsewhere else {}),
    }


def _sources(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".py", ".sql", ".yaml")]


def _digest(folder: Path, paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in paths):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()
