"""Which live models read a feature view: whom a change to it would concern."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.record import Record, nearest
from aios_platform.errors import FeatureError
from aios_platform.features.pinned_sets import recall

if TYPE_CHECKING:
    from aios_platform.resources.stores import Stores


class Reader(Record):
    """A live model that reads a feature view."""

    model: str
    owner: str
    version: str
    service: str
    features: tuple[str, ...]
    """Its inputs that come from the view."""


def readers_of(view: str, models: Mapping[str, Names], stores: "Stores") -> list[Reader]:
    """The live models whose champion was trained on features of this view.

    Asked are the champions' own training sets, so a service that was edited since does not hide a
    reader. Views that an on-demand view of the service reads count as well.

    Args:
        view: Name of the feature view.
        models: The declared models by name.
        stores: Where everything is.

    Raises:
        FeatureError: There is no such view.
        DatabaseUnavailable: The ledger or the feature registry does not answer.
    """
    from aios_platform.features.service import service_contract
    from aios_platform.ledger.champions import champion_of

    feast = stores.features
    known = [each.name for each in feast.list_all_feature_views()]
    if view not in known:
        raise FeatureError(
            f"There is no feature view '{view}' in the registry.", remedy=nearest(view, known)
        )
    found = []
    for name, names in models.items():
        champion = champion_of(stores.database, name)
        if champion is None:
            continue
        record = recall(stores.artifacts, name, champion.training_set_digest)
        fields = tuple(f.name for f in record.features.fields if f.origin == view)
        contract = service_contract(names.declaration, feast)
        beneath = any(source.name == view for source in contract.views)
        if fields or beneath:
            found.append(
                Reader(
                    model=name,
                    owner=names.declaration.owner,
                    version=champion.version,
                    service=names.declaration.features.service or "none",
                    features=fields,
                )
            )
    return found
