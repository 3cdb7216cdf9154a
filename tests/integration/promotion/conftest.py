"""A home with a small model that has lived once, and four versions trained by somebody."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.resources.stores import Stores
from tests.e2e import small_flights

AS_OF = datetime(2013, 5, 10, tzinfo=UTC)
LENIENT = {
    "min_rows": 200,
    "resamples": 200,
    "margin": 0.2,
    "slice_margin": 0.4,
    "guards": {"log_loss": 0.5},
    "max_latency_ratio": 50,
    "max_latency_ms": 1000,
    "max_exam_drift": 1.0,
}
ROLES = {
    "boss": ["admin"],
    "ci": ["author", "operator"],
    "ann": ["approver"],
}


def small(**gate: Any) -> Names:
    """The small model on four months, with a gate that two equally good versions pass."""
    windows = small_flights.attributes()["windows"] | {"end": "2013-05-01"}
    return small_flights.names(
        windows=windows,
        exam={"windows": 1},
        training={"hidden": [8], "epochs": 1, "min_windows": 3, "batch_size": 512},
        gate=LENIENT | gate,
    )


def with_seed(names: Names, seed: int) -> Names:
    """The model with another seed, and so other weights."""
    training = names.declaration.training.model_copy(update={"seed": seed})
    return Names(names.declaration.model_copy(update={"training": training}), names.folder)


@dataclass
class Home:
    """A home in which the small model lives."""

    names: Names
    stores: Stores
    instance: dg.DagsterInstance
    definitions: dg.Definitions
    keys: dict[str, str]
    results: list[Any] = field(default_factory=list)
    versions: dict[tuple[int, float | None], str] = field(default_factory=dict)

    def run(self, names: Names | None = None) -> list[Any]:
        """Run the plan until nothing is left to do."""
        from aios_platform.components.model_lifecycle.runner import run_until_done

        chosen = names or self.names
        definitions = small_flights.definitions(chosen)
        return list(
            run_until_done(
                chosen,
                definitions,
                self.instance,
                self.stores.artifacts,
                self.stores.database,
                AS_OF,
            )
        )

    def train(self, seed: int, *, sample: float | None = None) -> str:
        """A version with this seed, on the first champion's training set; trained once."""
        from aios_platform.components.model_lifecycle.candidates import train_candidate
        from aios_platform.features.pinned_sets import recall, remember

        if (seed, sample) not in self.versions:
            digest = self.rows("candidate")[-1].payload["training_set_digest"]
            record = recall(self.stores.artifacts, self.names.model, digest)
            record = record.model_copy(update={"sample": sample})
            remember(self.stores.artifacts, self.names.model, record)
            made, _, _ = train_candidate(with_seed(self.names, seed), record, self.stores)
            self.versions[seed, sample] = made.version
        return self.versions[seed, sample]

    def spare(self) -> str:
        """A version that is not live."""
        live = self.champion().version
        return next(v for v in (self.train(seed=2), self.train(seed=3)) if v != live)

    def champion(self) -> Any:
        """The live champion."""
        from aios_platform.ledger.champions import champion_of

        return champion_of(self.stores.database, self.names.model)

    def rows(self, kind: str) -> list[Any]:
        """Rows of the ledger of one kind, newest first."""
        from aios_platform.ledger.entries import entries

        return entries(self.stores.database, subject=self.names.model, kind=kind, limit=1000)

    def promotions_of(self, version: str) -> int:
        """How often the ledger says that a version was promoted."""
        return sum(r.payload["champion"]["version"] == version for r in self.rows("promotion"))

    def promote(self, version: str, names: Names | None = None, **options: Any) -> Any:
        """What `aios promote` does."""
        from aios_platform.components.model_lifecycle.promoting import promote_version

        return promote_version(names or self.names, version, self.stores, AS_OF, **options)

    def alias(self) -> str | None:
        """Where MLflow's alias points."""
        return self.stores.registry.champion_alias(self.names.model)


@pytest.fixture(scope="module")
def home(own_home: Any) -> Iterator[Home]:
    from aios_platform.access.principals import acting_with, add

    stores, keys = Stores(), {}
    for name, roles in ROLES.items():
        if name == "boss":
            keys[name] = add(stores.database, name, roles)
            continue
        with acting_with(keys["boss"]):
            keys[name] = add(stores.database, name, roles)
    names = small()
    with dg.DagsterInstance.ephemeral() as instance:
        made = Home(names, stores, instance, small_flights.definitions(names), keys)
        with acting_with(keys["ci"]):
            made.results = made.run()
        yield made


@pytest.fixture(autouse=True)
def _acting_as_ci(home: Home) -> Iterator[None]:
    from aios_platform.access.principals import acting_with

    with acting_with(home.keys["ci"]):
        yield


@pytest.fixture
def aios(home: Home, monkeypatch: pytest.MonkeyPatch):
    """The command itself, on the small model."""
    from typer.testing import CliRunner

    from aios_platform.cli import package, promotion, provenance, rollout
    from aios_platform.cli.main import app

    def call(*arguments: str, names: Names | None = None) -> Any:
        for module in (package, promotion, provenance, rollout):
            monkeypatch.setattr(module, "names_of", lambda model: names or home.names)
        return CliRunner().invoke(app, list(arguments))

    return call
