"""A stranger's way: a Parquet file, `aios init`, and the commands that it prints.

In a copy of the checkout, as in a fresh clone, since a declaration is written into it.
"""

import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("aios_platform", "feature_repo", "pyproject.toml", "dagster.yaml", "workspace.yaml")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Runs `aios` in a checkout of its own, with a home of its own."""
    folder = tmp_path_factory.mktemp("stranger")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in NEEDED:
        place = ROOT / name
        if place.is_dir():
            shutil.copytree(place, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(place, checkout / name)
    environment = os.environ | {"AIOS_HOME": str(folder / "home"), "PYTHONPATH": str(checkout)}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "aios_platform", *arguments],
            cwd=checkout, env=environment, capture_output=True, text=True, timeout=600,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    return folder, checkout, run


def tumours():
    """560 real tumours (scikit-learn), eight a day: days that are made up, in the file's order."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    step = timedelta(hours=3)
    times = [datetime(2024, 1, 1) + place * step for place in range(len(found.target))]
    names = [str(name).replace(" ", "_") for name in found.feature_names[:10]]
    columns = dict(zip(names, found.data[:, :10].T, strict=True))
    table = pa.table({"measured_at": times, **columns, "benign": found.target.astype(bool)})
    return table.slice(0, 560)


def test_from_a_parquet_file_to_a_champion_with_windows_scored_and_drift(stranger):
    folder, checkout, aios = stranger
    data = folder / "tumours.parquet"
    pq.write_table(tumours(), data)
    asked = ("init", "tumour", "--from", str(data), "--label", "benign", "--time", "measured_at")

    unasked = aios(*asked)
    assert unasked.returncode != 0
    assert "is 'benign' known?" in " ".join(unasked.stderr.replace("│", " ").split())
    assert not (checkout / "aios_platform/defs/tumour").exists()

    made = aios(*asked, "--maturity-days", "3")
    assert made.returncode == 0, made.stderr
    assert "binary classification of 'benign', 560 rows in 10 windows of a week" in made.stdout
    told = [line.split("aios ", 1)[1].split() for line in made.stdout.splitlines()
            if line.startswith("  aios ")]  # fmt: skip
    assert [command[0] for command in told] == ["run", "status", "replay"]
    again = aios(*asked, "--maturity-days", "3")
    assert again.returncode != 0
    assert "There is a model 'tumour' already" in again.stderr

    ran = aios(*told[0])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "PROMOTE" in ran.stdout

    status = aios(*told[1])
    assert status.returncode == 0, status.stderr
    assert "2024-03-04" in status.stdout
    artifacts = folder / "home" / "artifacts"
    assert list(artifacts.glob("reports/tumour/drift/2024-03-04-*.html"))
    scored = list(artifacts.glob("datasets/tumour/predictions/2024-03-*/**/*"))
    assert scored, sorted(str(p.relative_to(artifacts)) for p in artifacts.glob("datasets/*/*"))

    nothing = aios(*told[0])
    assert nothing.returncode == 0
    assert "score run" not in nothing.stdout + nothing.stderr, "nothing is left to do"
