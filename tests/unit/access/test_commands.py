"""`aios principals` as an admin runs it."""

import json
import sys

import pytest

from aios_platform.cli import main

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def aios(own_database, monkeypatch, capsys):
    """Runs a command with a key in the environment, or without; status and output."""
    from aios_platform import settings

    monkeypatch.setattr("aios_platform.database.database", lambda: own_database)
    # It takes log lines and warnings away from the test.
    monkeypatch.setattr("aios_platform.telemetry.configure", lambda _: None)

    def run(*arguments: str, key: str | None = None) -> tuple[int, str]:
        settings.settings.cache_clear()
        if key is None:
            monkeypatch.delenv("AIOS_API_KEY", raising=False)
        else:
            monkeypatch.setenv("AIOS_API_KEY", key)
        monkeypatch.setattr(sys, "argv", ["aios", "principals", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    yield run
    monkeypatch.undo()
    settings.settings.cache_clear()


def test_a_laptop_becomes_a_governed_installation(aios):
    assert "Open: no key was issued yet" in aios("list")[1]
    code, said = aios("add", "ada", "--role", "author")
    assert (code, "--role admin" in said) == (1, True)
    code, said = aios("add", "root", "--role", "admin")
    root = said.splitlines()[-1]
    assert (code, root[:5]) == (0, "aios_")

    code, said = aios("add", "bob", "--role", "approver")
    assert (code, "does not hold the role admin" in said) == (1, True)
    code, said = aios("add", "bob", "--role", "approver", "--role", "author", "--json", key=root)
    bob = json.loads(said)["key"]
    assert aios("whoami", key=bob) == (0, "bob: approver, author\n")
    assert json.loads(aios("whoami", "--json", key=bob)[1])["name"] == "bob"
    assert aios("grant", "bob", "--role", "operator", key=root) == (
        0, "bob: approver, author, operator\n",
    )  # fmt: skip
    assert aios("revoke", "bob", "--role", "author", key=root)[1] == "bob: approver, operator\n"
    newer = aios("rotate-key", "bob", "--expires-days", "30", key=bob)[1].splitlines()[-1]
    code, said = aios("whoami", key=bob)
    assert (code, "was revoked" in said) == (1, True)
    assert aios("whoami", key=newer)[0] == 0

    code, said = aios("list", key=root)
    assert "expires" in said
    assert "revoked" in said
    for key in (root, bob, newer):
        assert key not in said
    assert aios("revoke", "bob", key=root) == (0, "bob: no role\n")
    assert aios("whoami")[1].endswith(": no role\n")


def test_a_wrong_key_is_told_and_not_repeated(aios):
    key = "aios_000000000000_" + "S" * 43
    code, said = aios("whoami", key=key)
    assert (code, "unknown to this installation" in said) == (1, True)
    assert "SSSS" not in said


def test_a_role_that_is_none_is_explained(aios):
    code, said = aios("add", "root", "--role", "admn")
    assert code == 1
    assert "Did you mean 'admin'" in " ".join(said.split())
