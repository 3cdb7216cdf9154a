"""What a profile (`AIOS_PROFILE`) maps the platform's parts to. The declarations are the same.

| | local | team | cluster |
|---|---|---|---|
| Postgres | embedded, or a server | a server | a server |
| artifacts | a folder | a folder, or an object store | an object store |
| runs | processes | processes | Kubernetes jobs (`dagster-k8s`) |
| Feast's online store | Postgres | Postgres | Postgres, or Redis with `AIOS_REDIS` |
| yardsticks of a replay | a process | a process | Ray with `AIOS_RAY_ADDRESS` |
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from aios_platform.errors import SettingsError
from aios_platform.settings import PROJECT_ROOT, Profile, Settings

OVERLAYS = PROJECT_ROOT / "docker" / "dagster"
# Scheme of an artifact root: the module that reads it, and the extra that installs it.
FILESYSTEMS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs")}


def require_extra(module: str, extra: str, purpose: str) -> None:
    """Refuse unless an optional dependency is installed.

    Args:
        module: What it is imported as.
        extra: The extra of this package that installs it.
        purpose: What it is needed for, as the beginning of a sentence.

    Raises:
        SettingsError: It is not installed; the extra is named.
    """
    if importlib.util.find_spec(module) is None:
        raise SettingsError(
            f"{purpose} needs {module}, which is not installed.",
            remedy=f"pip install 'aios-platform[{extra}]'",
        )


def require_filesystem(settings: Settings) -> None:
    """Refuse unless the artifact root's file system can be read.

    Raises:
        SettingsError: The package for it is not installed.
    """
    scheme, separator, _ = settings.artifact_root.partition("://")
    if separator and scheme in FILESYSTEMS:
        module, extra = FILESYSTEMS[scheme]
        require_extra(module, extra, f"The artifact root {settings.artifact_root}")


def instance_configuration(settings: Settings) -> dict[str, Any]:
    """Dagster's instance: `dagster.yaml`, with what the profile lays over it.

    Raises:
        SettingsError: What the profile needs is not installed.
    """
    base: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())
    if settings.profile is Profile.LOCAL:
        return base
    if settings.profile is Profile.CLUSTER:
        require_extra("dagster_k8s", "k8s", "AIOS_PROFILE=cluster")
    overlay = yaml.safe_load((OVERLAYS / f"{settings.profile}.yaml").read_text())
    return merged(base, overlay)


def merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with another laid over it, key by key; lists and values are replaced."""
    found = dict(base)
    for key, value in overlay.items():
        below = found.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            found[key] = merged(below, value)
        else:
            found[key] = value
    return found


def feature_store_file(settings: Settings, repository: Path) -> Path:
    """Feast's configuration: on Postgres, or with the online store in Redis.

    Args:
        settings: Which of them.
        repository: The Feast repository.

    Raises:
        SettingsError: What Redis needs is not installed.
    """
    if settings.redis is None:
        return repository / "feature_store.yaml"
    require_extra("redis", "redis", "AIOS_REDIS")
    return repository / "feature_store.redis.yaml"
