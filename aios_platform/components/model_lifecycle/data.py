"""Assets `raw` and its checks: the source, validated, window by window."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.errors import WindowRejected
from aios_platform.resources.stores import Artifacts
from aios_platform.telemetry import stage
