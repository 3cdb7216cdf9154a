"""What the command ends with."""

import subprocess
import sys

import pytest

from aios_platform.settings import PROJECT_ROOT


@pytest.mark.parametrize(
    "arguments",
    [("promote", "flight_delay"), ("promote", "flight_delay", "--versoin", "3"), ("promot",)],
    ids=["missing option", "misspelt option", "misspelt command"],
)
def test_an_error_of_use_is_no_verdict(arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "aios_platform", *arguments],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Usage" in done.stderr
