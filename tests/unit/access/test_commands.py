"""`aios principals` and `aios callers` as an admin runs them."""

import json

import pytest

pytestmark = [pytest.mark.postgres]


def test_a_laptop_becomes_a_governed_installation(aios):
    assert "Open: no key was issued yet" in aios("principals", "list")[1]
    code, said = aios("principals", "add", "ada", "--role", "author")
    assert (code, "--role admin" in said) == (1, True)
    code, said = aios("principals", "add", "root", "--role", "admin")
    root = said.splitlines()[-1]
    assert (code, root[:5]) == (0, "aios_")

    code, said = aios("principals", "add", "bob", "--role", "approver")
    assert (code, "does not hold the role admin" in said) == (1, True)
    code, said = aios(
        "principals", "add", "bob", "--role", "approver", "--role", "author", "--json", key=root
    )
    bob = json.loads(said)["key"]
    assert aios("principals", "whoami", key=bob) == (0, "bob: approver, author\n")
    assert json.loads(aios("principals", "whoami", "--json", key=bob)[1])["name"] == "bob"
    assert aios("principals", "grant", "bob", "--role", "operator", key=root) == (
        0, "bob: approver, author, operator\n",
    )  # fmt: skip
    assert (
        aios("principals", "revoke", "bob", "--role", "author", key=root)[1]
        == "bob: approver, operator\n"
    )
    newer = aios("principals", "rotate-key", "bob", "--expires-days", "30", key=bob)[
        1
    ].splitlines()[-1]
    code, said = aios("principals", "whoami", key=bob)
    assert (code, "was revoked" in said) == (1, True)
    assert aios("principals", "whoami", key=newer)[0] == 0

    code, said = aios("principals", "list", key=root)
    assert "expires" in said
    assert "revoked" in said
    for key in (root, bob, newer):
        assert key not in said
    assert aios("principals", "revoke", "bob", key=root) == (0, "bob: no role\n")
    assert aios("principals", "whoami")[1].endswith(": no role\n")


def test_a_wrong_key_is_told_and_not_repeated(aios):
    key = "aios_000000000000_" + "S" * 43
    code, said = aios("principals", "whoami", key=key)
    assert (code, "unknown to this installation" in said) == (1, True)
    assert "SSSS" not in said


def test_a_role_that_is_none_is_explained(aios):
    code, said = aios("principals", "add", "root", "--role", "admn")
    assert code == 1
    assert "Did you mean 'admin'" in " ".join(said.split())


def test_callers_are_principals_without_a_role(aios):
    assert "everybody at this machine may call every model" in aios("callers", "list")[1]
    root = aios("principals", "add", "root", "--role", "admin")[1].splitlines()[-1]
    code, said = aios("principals", "add", "shop", "--json", key=root)
    assert code == 0, said

    flights = ("--model", "flight_delay")
    code, said = aios("callers", "grant", "shop", "--model", "flight_delya", key=root)
    assert (code, "Did you mean 'flight_delay'" in said) == (1, True)
    code, said = aios("callers", "grant", "shop", *flights)
    assert (code, "does not hold the role admin" in said) == (1, True)
    code, said = aios(
        "callers", "grant", "shop", "--model", "flight_delay", "--rate", "5", key=root
    )
    assert (code, said.split()) == (0, ["shop", "flight_delay", "5", "requests", "per", "second"])
    code, said = aios("callers", "grant", "shop", "--model", "*", key=root)
    assert (code, said.split()) == (0, ["shop", "*", "no", "limit"])
    [every, one] = json.loads(aios("callers", "list", "--json")[1])
    assert (every["model"], one["requests_per_second"]) == ("*", 5.0)
    code, said = aios("callers", "revoke", "shop", "--model", "*", key=root)
    assert (code, said.split()[:2]) == (0, ["shop", "flight_delay"])
    assert aios("callers", "revoke", "shop", key=root) == (0, "No grant.\n")
