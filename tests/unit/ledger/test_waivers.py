from datetime import UTC, datetime, timedelta

import pytest

from aios_platform.access.principals import acting_as, acting_with, add
from aios_platform.errors import AccessDenied, WaiverError
from aios_platform.ledger.entries import entry
from aios_platform.ledger.waivers import active, grant, revoke

pytestmark = [pytest.mark.postgres]


def soon(**span) -> datetime:
    return datetime.now(UTC) + timedelta(**span)


def give(database, rule="max_size", reason="a bigger box comes in May", until=None, **extra):
    return grant(
        database, model="m", rule=rule, reason=reason, expires_at=until or soon(days=30), **extra
    )


def test_a_waiver_is_in_force_until_it_expires(own_database):
    granted = give(own_database)
    assert active(own_database, "m", soon(seconds=1)) == {"max_size": granted}
    assert active(own_database, "other", soon(seconds=1)) == {}
    assert active(own_database, "m", granted.expires_at) == {}
    assert active(own_database, "m", soon(days=-1)) == {}, "not before it was granted"
    row = entry(own_database, granted.ledger_row)
    assert (row.kind, row.principal, row.payload["rule"]) == (
        "waiver", granted.principal, "max_size",
    )  # fmt: skip


def test_of_two_the_newest_counts_and_one_can_be_ended(own_database):
    first, second = give(own_database, reason="first"), give(own_database, reason="second")
    assert active(own_database, "m", soon(seconds=1))["max_size"] == second
    for _ in range(2):
        revoke(own_database, second.ledger_row, reason="it came")
    assert active(own_database, "m", soon(seconds=1))["max_size"] == first
    with pytest.raises(WaiverError, match="Row 999"):
        revoke(own_database, 999, reason="x")
    with pytest.raises(WaiverError, match="No reason"):
        revoke(own_database, first.ledger_row, reason=" ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"reason": "  "}, "no reason"),
        ({"until": soon(seconds=-1)}, "would expire"),
        ({"until": soon(days=91)}, "would expire"),
        ({"rule": "Max size"}, "not the name of a rule"),
        ({"rule": ""}, "not the name of a rule"),
        ({"rule": "candidate_unseen", "unwaivable": {"candidate_unseen"}}, "cannot be waived"),
        ({"rule": "slice:origin=JFK", "unwaivable": ("slice",)}, "cannot be waived"),
    ],
)
def test_what_is_no_waiver_is_refused(own_database, change, told):
    with pytest.raises(WaiverError, match=told):
        give(own_database, **change)
    assert active(own_database, "m", soon(seconds=1)) == {}


def test_only_an_approver_grants(own_database):
    root = add(own_database, "root", ["admin"])
    with acting_with(root):
        bob = add(own_database, "bob", ["approver"])
        with pytest.raises(AccessDenied, match="root does not hold the role approver"):
            give(own_database)
    with acting_as("service:scheduler"), pytest.raises(AccessDenied, match="approver"):
        give(own_database)
    with acting_with(bob):
        assert give(own_database).principal == "bob"
