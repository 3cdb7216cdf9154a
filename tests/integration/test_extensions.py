"""The package of docs/how-to/extend.md, installed outside the tree and used; and broken ones."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.alerts.delivery import deliver_due, told
from aios_platform.alerts.outbox import raise_alert
from aios_platform.alerts.outputs import AddedOutput, LogOutput
from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.training import Training
from aios_platform.errors import ExtensionError
from aios_platform.extensions import Kind, installed, load
from aios_platform.inference.session import Session
from aios_platform.settings import Settings
from aios_platform.training.trainer import train
from tests.unit.alerts.receivers import an_alert

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/extend.md").read_text()


def block(language: str) -> str:
    """The page's only block in this language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where pip has put the page's package: a folder that nobody else imports from."""
    folder = tmp_path_factory.mktemp("extension")
    package, target = folder / "our_parts", folder / "installed"
    package.mkdir()
    (package / "pyproject.toml").write_text(block("toml"))
    (package / "our_parts.py").write_text(block("python"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-build-isolation", "--target", str(target), str(package)],
        check=True, capture_output=True,
    )  # fmt: skip
    return target


@pytest.fixture
def importable(monkeypatch):
    """Lets this process see what is installed in a folder, for one test."""

    def see(folder: Path) -> None:
        monkeypatch.syspath_prepend(str(folder))
        installed.cache_clear()

    yield see
    monkeypatch.undo()
    installed.cache_clear()
    for name in ("our_parts", "their_parts"):
        sys.modules.pop(name, None)


@pytest.fixture
def broken(tmp_path):
    """An installed package whose module cannot be imported, and an output that raises."""
    folder = tmp_path / "broken"
    info = folder / "their_parts-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-parts\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(
        "[aios_platform.alert_outputs]\ngone = not_there:Output\nfails = their_parts:Fails\n"
    )
    (folder / "their_parts.py").write_text(
        "class Fails:\n    def send(self, batch):\n        raise OSError('http://user:secret@a')\n"
    )
    return folder


def aios(*arguments: str, path: Path, **variables: str) -> tuple[int, str]:
    """A command of a process that sees a folder; status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "aios_platform", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(path), str(ROOT))), **variables},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_command_lists_what_is_installed_and_whose_it_is(place):
    code, said = aios("extensions", "--json", path=place)
    found = [json.loads(line) for line in said.splitlines()]
    assert code == 0
    assert [(one["group"], one["name"], one["package"], one["error"]) for one in found] == [
        ("aios_platform.networks", "linear", "our-parts 1.0", None),
        ("aios_platform.alert_outputs", "file", "our-parts 1.0", None),
    ]


def test_a_declared_network_of_the_package_is_trained_and_exported(place, importable, tmp_path):
    importable(place)
    random = np.random.default_rng(0)
    size = random.normal(0, 1, 900)
    rows = pa.table(
        {
            "window": pa.array(np.repeat(["2024-01", "2024-02", "2024-03"], 300)),
            "size": pa.array(size),
            "late": pa.array(size + random.normal(0, 0.5, 900) > 0),
        }
    )
    model = train(
        Training(network="linear", epochs=10, batch_size=64, learning_rate=0.05, accelerator="cpu"),
        FeatureSchema(
            fields=(FeatureField(name="size", kind=FieldKind.NUMERICAL, origin="request"),)
        ),
        rows,
        label="late",
        workdir=tmp_path,
    )
    assert model.metrics["roc_auc"] > 0.9
    low, high = Session(model.onnx, digest=model.digest).predict(pa.table({"size": [-2.0, 2.0]}))
    assert low < 0.1
    assert high > 0.9


def test_a_network_that_is_not_installed_is_refused(importable):
    installed.cache_clear()
    with pytest.raises(ValueError, match="'linear' is neither a network nor"):
        Training(network="linear")


def test_alerts_reach_the_output_of_the_package(place, tmp_path):
    file = tmp_path / "alerts"
    said = aios(
        "alerts", "test", path=place, AIOS_ALERT_EXTENSIONS="file", OUR_ALERTS=str(file)
    )  # fmt: skip
    assert said[0] == 0, said
    assert "file     delivered" in said[1]
    assert re.fullmatch(r"msg_\w+ platform: .*\n", file.read_text())


@pytest.mark.postgres
def test_a_broken_output_keeps_its_alerts_and_the_others_are_told(
    own_database, importable, broken, place, tmp_path, monkeypatch
):
    from aios_platform import settings

    importable(broken)
    file = tmp_path / "alerts"
    monkeypatch.setenv("OUR_ALERTS", str(file))
    monkeypatch.setenv("AIOS_ALERT_EXTENSIONS", "gone,fails,file")
    settings.settings.cache_clear()
    try:
        raise_alert(own_database, an_alert())
    finally:
        monkeypatch.delenv("AIOS_ALERT_EXTENSIONS")
        settings.settings.cache_clear()
    outputs = [LogOutput(), *map(AddedOutput, ("gone", "fails", "file"))]
    now = datetime.now(UTC)
    report = deliver_due(own_database, outputs, now)
    assert (report.sent, report.failed) == (1, 3)
    said = "\n".join(report.failures)
    assert "ModuleNotFoundError" in said
    assert "The output 'fails' failed: OSError in send, line 3." in said
    assert "No installed package adds 'file'" in said
    assert "secret" not in said
    importable(place)
    sys.modules.pop("our_parts", None)
    again = deliver_due(own_database, outputs[3:], now.replace(year=now.year + 1))
    assert (again.sent, again.failed) == (1, 0)
    states = {one.output: one.state for one in told(own_database, 1)}
    assert states == {"log": "sent", "file": "sent", "gone": "pending", "fails": "pending"}
    assert len(file.read_text().splitlines()) == 1


def test_the_command_says_what_cannot_be_imported(broken):
    code, said = aios("extensions", path=broken)
    assert code == 1
    assert "not_there:Output  (their-parts 2.0)" in said
    assert "cannot be imported: ModuleNotFoundError" in said


def test_two_packages_with_one_name_are_both_named(place, broken, importable):
    (broken / "their_parts-2.0.dist-info/entry_points.txt").write_text(
        "[aios_platform.networks]\nlinear = their_parts:Linear\n"
    )
    importable(place)
    importable(broken)
    with pytest.raises(ExtensionError, match="our_parts:Linear and their_parts:Linear"):
        load(Kind.NETWORK, "linear")


@pytest.mark.parametrize("names", ["log", "file,file", "webhook"])
def test_an_output_has_a_name_of_its_own(monkeypatch, names):
    monkeypatch.setenv("AIOS_ALERT_EXTENSIONS", names)
    with pytest.raises(ValueError, match="another output already"):
        Settings()
