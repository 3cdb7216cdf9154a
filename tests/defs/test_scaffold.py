"""`dg scaffold defs aios_platform.components.ModelLifecycle`, in a copy of the checkout."""

import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
SCAFFOLD = ("scaffold", "defs", "aios_platform.components.ModelLifecycle")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("aios_platform", "feature_repo"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    random = np.random.default_rng(0)
    size = random.lognormal(2, 1, 2_000)
    table = pa.table(
        {
            "at": [datetime(2024, 1, 1) + timedelta(hours=2 * place) for place in range(2_000)],
            "size": size,
            "large": size + random.normal(0, 4, 2_000) > 8,
        }
    )
    pq.write_table(table, folder / "orders.parquet")
    return folder


@pytest.fixture
def run(checkout):
    """Runs a command of this environment in the copy; status, and output without line breaks."""

    def run_(*command: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(Path(sys.prefix) / "bin" / command[0]), *command[1:]],
            cwd=checkout, capture_output=True, text=True, check=False, timeout=120,
            env=os.environ | {"PYTHONPATH": str(checkout), "DAGSTER_HOME": str(checkout)},
        )  # fmt: skip
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    return run_


def test_it_writes_a_declaration_that_loads(checkout, run):
    wanted = ("--data", "orders.parquet", "--label", "large", "--time", "at")
    code, said = run("dg", *SCAFFOLD, "orders", *wanted, "--maturity-days", "2")
    assert code == 0, said
    assert "set `owner`, then: aios run orders" in said
    written = (checkout / "aios_platform/defs/orders/defs.yaml").read_text()
    assert "type: aios_platform.components.ModelLifecycle" in written
    code, said = run("python", "-m", "aios_platform", "models")
    assert code == 0, said
    assert "orders" in said
    # Dagster's own checks of every declaration, with what they turn into.
    code, said = run("dg", "check", "defs")
    assert code == 0, said
    code, said = run("dg", *SCAFFOLD, "orders", *wanted, "--maturity-days", "3")
    assert code != 0
    assert "already exists" in said
    assert (checkout / "aios_platform/defs/orders/defs.yaml").read_text() == written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], '"maturity_days" ], "msg": "Field required"'),
        (["--data", "orders.parquet", "--label", "lrge", "--time", "at", "--maturity-days", "2"],
         "Did you mean 'large'?"),
        (["--data", "orders.parquet", "--label", "large", "--time", "at", "--maturity-days", "2",
          "--format", "python"], "A model is declared by a defs.yaml"),
    ],
    ids=["nothing said", "no such label", "another format"],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_left(checkout, run, options, message):
    code, said = run("dg", *SCAFFOLD, "wrong", *options)
    assert code != 0
    assert message in said
    assert not (checkout / "aios_platform/defs/wrong").exists()
