"""Servers that receive alerts, and settings that name them."""

import subprocess

import pytest

from tests.unit.alerts.receivers import WebServer


@pytest.fixture
def web():
    """A real web server: the record of what it got, and where it is."""
    server = WebServer()
    with server.serving() as url:
        server.url = url
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate of our own for 'localhost', which nobody trusts who is not told to."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", str(folder / "key.pem"),
         "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def logged(monkeypatch, caplog):
    """Log lines, also after a command has taken the platform's own away from the root."""
    import logging

    logger = logging.getLogger("aios_platform")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    return caplog


@pytest.fixture
def configured(monkeypatch):
    """Sets AIOS_ALERT_... variables; the settings are read anew."""
    from aios_platform import settings

    def set_(**variables: str) -> settings.Settings:
        for name, value in variables.items():
            monkeypatch.setenv(f"AIOS_ALERT_{name.upper()}", value)
        settings.settings.cache_clear()
        return settings.settings()

    yield set_
    monkeypatch.undo()
    settings.settings.cache_clear()
