"""A gateway for whatever may be asked of it."""

from collections.abc import Iterator

import pytest

from aios_platform.artifacts import ArtifactStore
from tests.faults.gateway_process import GatewayProcess, gateway
from tests.faults.raw_http import MODEL
from tests.served_models import declare, make_champion, network


@pytest.fixture(scope="package")
def odd_gateway(database, tmp_path_factory) -> Iterator[GatewayProcess]:
    """A gateway that takes bodies of a MiB and a hundred rows."""
    folder = tmp_path_factory.mktemp("gateway")
    store = ArtifactStore(str(folder / "artifacts"))
    declare(folder / "defs", MODEL, max_body_mib=1, max_rows=100)
    make_champion(database, store, network(), model=MODEL)
    with gateway(
        folder, database=database, artifacts=str(folder / "artifacts"), defs=folder / "defs"
    ) as started:
        yield started
