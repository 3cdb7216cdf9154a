"""The stranger's test: every command of the tutorial, in its order, in a fresh checkout.

A declaration is written into the checkout, so it is a copy of this one.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("aios_platform", "feature_repo", "pyproject.toml", "dagster.yaml", "workspace.yaml")
COMMANDS = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "docs/tutorial.md").read_text(), re.M | re.S)
SERVE = next(command for command in COMMANDS if " serve " in command)
ASK = next(command for command in COMMANDS if "curl" in command)
PATIENCE = 120.0


class Stranger:
    """Somebody in a fresh checkout with a home of their own."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.home = folder / "checkout", folder / "home"
        self.checkout.mkdir()
        for name in NEEDED:
            place = ROOT / name
            if place.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(place, self.checkout / name, ignore=ignored)
            else:
                shutil.copy(place, self.checkout / name)
        (self.checkout / ".venv").symlink_to(sys.prefix)
        self.environment = os.environ | {
            "AIOS_HOME": str(self.home),
            "PYTHONPATH": str(self.checkout),
        }

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.checkout, env=self.environment, capture_output=True, text=True, timeout=600,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def serving(self, port: int) -> Iterator[None]:
        command = SERVE.strip().removesuffix("&").replace("8080", str(port))
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.checkout, env=self.environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + PATIENCE
            while not _ready(port):
                assert process.poll() is None, "the gateway ended"
                assert time.monotonic() < deadline, "nothing serves"
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(60)


def _ready(port: int) -> bool:
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").status == 200
    return False


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Stranger(tmp_path_factory.mktemp("stranger"))


def test_every_command_of_the_tutorial_does_what_it_says(stranger):
    assert len(COMMANDS) == 6
    make, init, run, look, serve, ask = COMMANDS
    assert (serve, ask) == (SERVE, ASK)

    assert stranger.run(make).returncode == 0
    unasked = stranger.run(init.replace(" --maturity-days 3", ""))
    assert unasked.returncode != 0
    assert "is 'benign' known?" in " ".join(unasked.stderr.replace("│", " ").split())
    assert not (stranger.checkout / "aios_platform/defs/tumour").exists()
    made = stranger.run(init)
    assert made.returncode == 0, made.stderr
    assert "binary classification of 'benign', 560 rows in 10 windows of a week" in made.stdout
    assert ".venv/bin/" + run.strip().split("/")[-1] in run, "what it prints is what is run next"
    assert f"  {run.strip().removeprefix('.venv/bin/')}\n" in made.stdout
    twice = stranger.run(init)
    assert twice.returncode != 0
    assert "There is a model 'tumour' already" in twice.stderr

    ran = stranger.run(run)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "PROMOTE" in ran.stdout
    assert list((stranger.home / "artifacts").glob("reports/tumour/drift/2024-03-04-*.html"))
    scored = (stranger.home / "artifacts/datasets/tumour/predictions").iterdir()
    assert len({window.name for window in scored}) >= 2, "windows after the first are scored"
    again = stranger.run(run)
    assert again.returncode == 0
    assert "score run" not in again.stdout + again.stderr, "nothing is left to do"

    told = stranger.run(look)
    assert told.returncode == 0, told.stderr
    assert "promotion" in told.stdout

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with stranger.serving(port):
        answered = stranger.run(ask.replace("8080", str(port)))
    assert answered.returncode == 0, answered.stdout + answered.stderr
    prediction = json.loads(answered.stdout)["prediction"]
    assert prediction["probability"] > 0.5, "small and smooth: benign"
