"""What the tests of access share."""

import sys

import pytest

from aios_platform.cli import main


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
        monkeypatch.setattr(sys, "argv", ["aios", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    yield run
    monkeypatch.undo()
    settings.settings.cache_clear()
