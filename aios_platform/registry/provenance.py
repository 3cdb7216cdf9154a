"""What a run said about the origin of a version, read back."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from aios_platform.contracts.models import ModelVersion, Provenance
from aios_platform.registry.record import (
    AUTHOR_TAG,
    COMMIT_TAG,
    DECLARATION_FILE,
    DECLARATION_TAG,
    DIGEST_TAG,
    LIBRARIES_TAG,
    SERVICE_TAG,
    SOURCES_TAG,
    TRAINING_SET_FILE,
    TRAINING_SET_TAG,
)


def provenance(
    version: ModelVersion,
    tags: Mapping[str, str],
    parameters: Mapping[str, str],
    metrics: Mapping[str, float],
    pinned: Mapping[str, Any],
) -> Provenance:
    """Everything a version was made from.

    Args:
        version: The version.
        tags: Tags of its run.
        parameters: Parameters of its run.
        metrics: Metrics of its run.
        pinned: The logged record of its training set.

    Raises:
        KeyError: A part is not there.
    """
    return Provenance(
        version=version,
        declaration_fingerprint=tags[DECLARATION_TAG],
        feature_service_digest=tags[SERVICE_TAG],
        training_frames=pinned["frames"],
        features=pinned["features"],
        train_windows=tuple(parameters["train_windows"].split(",")),
        validation_windows=tuple(parameters["validation_windows"].split(",")),
        git_commit=tags[COMMIT_TAG],
        sources=json.loads(tags.get(SOURCES_TAG) or "{}"),
        libraries=json.loads(tags[LIBRARIES_TAG]),
        parameters=dict(parameters),
        metrics=dict(metrics),
    )


def missing(
    version: ModelVersion,
    tags: Mapping[str, str],
    parameters: Mapping[str, str],
    files: Collection[str],
) -> tuple[str, ...]:
    """What a version does not say about its origin; empty: it can be trained again.

    Args:
        version: The version.
        tags: Tags of its run.
        parameters: Parameters of its run.
        files: Names of the documents that its run logged.
    """
    stated = {
        "model digest": tags.get(DIGEST_TAG) == version.digest,
        "training set": tags.get(TRAINING_SET_TAG) == version.training_set_digest
        and TRAINING_SET_FILE in files,
        "declaration": bool(tags.get(DECLARATION_TAG)) and DECLARATION_FILE in files,
        "feature service": bool(tags.get(SERVICE_TAG)),
        "source files": bool(tags.get(COMMIT_TAG)) and tags.get(SOURCES_TAG, "{}") != "{}",
        "libraries": tags.get(LIBRARIES_TAG, "{}") != "{}",
        "seed": "seed" in parameters,
        "training windows": bool(parameters.get("train_windows")),
        "author": bool(version.tags.get(AUTHOR_TAG)),
    }
    return tuple(name for name, there in stated.items() if not there)
