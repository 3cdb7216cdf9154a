"""The package of docs/how-to/extend.md, installed outside the tree and used; and broken ones."""

import json
import os
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from aios_platform.alerts.delivery import deliver_due, told
from aios_platform.alerts.outbox import raise_alert
from aios_platform.alerts.outputs import AddedOutput, LogOutput
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.decisions import Decision, Outcome
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.policy import AddedRule, Gate
from aios_platform.contracts.training import Training
from aios_platform.contracts.windows import WindowSchedule
from aios_platform.errors import ExtensionError, PromotionError
from aios_platform.extensions import Kind, folder_of, installed, load
from aios_platform.features.tables import FeatureEngine, feature_queries
from aios_platform.inference.session import Session
from aios_platform.promotion.rules import check_waivable
from aios_platform.registry.origin import source_digests
from aios_platform.resampling import gain_interval
from aios_platform.settings import Settings
from aios_platform.training.trainer import train
from tests.unit.alerts.receivers import an_alert
from tests.unit.contracts.test_declaration import MINIMAL
from tests.unit.promotion import test_gate

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
    (package / "our_features").mkdir()
    (package / "our_features/__init__.py").touch()
    (package / "our_features/visits.sql").write_text(block("sql"))
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
    for name in ("our_parts", "our_features", "their_parts"):
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
        ("aios_platform.metrics", "mean_cost", "our-parts 1.0", None),
        ("aios_platform.feature_sql", "visits", "our-parts 1.0", None),
        ("aios_platform.gate_rules", "least_recall", "our-parts 1.0", None),
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


def gate_with(*rules) -> Gate:
    return test_gate.GATE.model_copy(
        update={"rules": tuple(AddedRule.model_validate(rule) for rule in rules)}
    )


def verdict_of(gate):
    """What the gate says of a good candidate against a poor champion."""
    exam = replace(test_gate.EXAM, columns={"size": np.arange(test_gate.ROWS)})
    return test_gate.judge(
        test_gate.contender("2", test_gate.GOOD),
        test_gate.contender("1", test_gate.POOR),
        exam=exam,
        gate=gate,
    )


def least_recall(least):
    return {"rule": "least_recall", "options": {"threshold": 0.5, "least": least}}


def test_a_rule_of_the_package_stops_a_candidate_that_the_gate_would_promote(place, importable):
    importable(place)
    assert verdict_of(gate_with()).decision is Decision.PROMOTE
    found = float((test_gate.GOOD[test_gate.LABELS] >= 0.5).mean())
    kept = verdict_of(gate_with(least_recall(found)))
    assert kept.decision is Decision.PROMOTE
    (rule,) = (rule for rule in kept.rules if rule.rule == "added_least_recall")
    assert (rule.observed, rule.bound, rule.rows) == (found, found, test_gate.ROWS)
    assert rule.reason.endswith("of the positives are found. (least_recall of our-parts 1.0)")
    missed = verdict_of(gate_with(least_recall(found + 0.01)))
    assert missed.decision is Decision.REJECT
    assert any("of the positives are found" in reason for reason in missed.reasons)


def by_cost(**policy) -> Gate:
    """The gate's policy by the package's metric."""
    content = test_gate.GATE.model_dump(mode="json") | {"metric": "mean_cost", "margin": 0.05}
    return Gate.model_validate(content | {"floors": {"mean_cost": 1.5}, **policy})


def cost_of(scores) -> float:
    called, truth = scores >= 0.2, test_gate.LABELS.astype(bool)
    return float((called + 5.0 * (truth & ~called)).mean())


def rule_of(verdict, name):
    (rule,) = (rule for rule in verdict.rules if rule.rule == name)
    return rule


def test_champion_and_challenger_are_compared_by_a_metric_of_the_package(place, importable):
    importable(place)
    verdict = verdict_of(by_cost())
    assert verdict.decision is Decision.PROMOTE
    own, other = cost_of(test_gate.GOOD), cost_of(test_gate.POOR)
    assert verdict.candidate_metrics["mean_cost"] == pytest.approx(own)
    compared = rule_of(verdict, "non_inferior")
    assert compared.observed == pytest.approx(other - own)
    assert compared.low < compared.observed < compared.high
    assert "mean_cost of our-parts 1.0 is" in compared.reason
    assert rule_of(verdict, "floor_mean_cost").outcome is Outcome.PASS
    back = test_gate.judge(
        test_gate.contender("2", test_gate.POOR),
        test_gate.contender("1", test_gate.GOOD),
        exam=test_gate.EXAM,
        gate=by_cost(),
    )
    assert back.decision is Decision.REJECT
    assert rule_of(back, "non_inferior").outcome is Outcome.FAIL


def test_its_paired_interval_is_that_of_repeated_rows(place, importable):
    importable(place)
    truth, own, other = test_gate.LABELS, test_gate.GOOD, test_gate.POOR
    found = gain_interval("mean_cost", truth, own, other, seed=3, resamples=300)
    called, theirs = own >= 0.2, other >= 0.2
    each = (theirs + 5.0 * (truth & ~theirs)) - (called + 5.0 * (truth & ~called))
    random = np.random.default_rng(5)
    draws = [each[random.integers(0, each.size, each.size)].mean() for _ in range(2000)]
    assert found.estimate == pytest.approx(each.mean())
    assert found.standard_error == pytest.approx(np.std(draws), rel=0.15)


def test_it_may_be_a_guard_and_a_floor_that_refuse(place, importable):
    importable(place)
    strict = verdict_of(by_cost(floors={"mean_cost": cost_of(test_gate.GOOD) - 0.01}))
    assert strict.decision is Decision.REJECT
    assert "mean_cost of our-parts 1.0 is" in rule_of(strict, "floor_mean_cost").reason
    guarded = by_cost(metric="roc_auc", guards={"mean_cost": 0.05}, floors={})
    assert rule_of(verdict_of(guarded), "guard_mean_cost").outcome is Outcome.PASS


METRICS = """
import numpy as np
from aios_platform.metrics import AddedMetric
def made(compute, task="binary_classification"):
    return AddedMetric(task, True, compute)
def _raises(truth, answers, weights):
    raise OSError("no network")
def _writes(truth, answers, weights):
    answers[:] = 1
    return 0.5
raises, writes = made(_raises), made(_writes)
ignores_weights = made(lambda truth, answers, weights: float(np.mean(answers[truth])))
sums = made(lambda truth, answers, weights: float((answers * weights).sum() / truth.size))
not_finite = made(lambda truth, answers, weights: float("nan"))
says_none = made(lambda truth, answers, weights: None)
of_numbers = made(lambda truth, answers, weights: 0.5, task="regression")
def no_metric(truth, answers, weights):
    return 0.5
"""


BROKEN_METRICS = {
    "raises": "raises of their-parts 2.0 has no value of 2,000 rows: OSError: no network",
    "writes": "read-only",
    "ignores_weights": "does not heed its weights",
    "sums": "does not heed its weights",
    "not_finite": "is nan",
    "says_none": "TypeError",
    "of_numbers": "is a metric of regression",
    "no_metric": "is a function, no AddedMetric",
    "gone": "cannot be imported",
}


@pytest.fixture
def metrics(broken):
    lines = [f"{name} = their_parts:{name}" for name in BROKEN_METRICS if name != "gone"]
    (broken / "their_parts-2.0.dist-info/entry_points.txt").write_text(
        "[aios_platform.metrics]\n" + "\n".join([*lines, "gone = not_there:metric"]) + "\n"
    )
    (broken / "their_parts.py").write_text(METRICS)
    return broken


@pytest.mark.parametrize(("name", "said"), BROKEN_METRICS.items(), ids=BROKEN_METRICS)
def test_a_broken_metric_never_promotes(metrics, importable, name, said):
    importable(metrics)
    for policy in ({"metric": name}, {"metric": "roc_auc", "guards": {name: 0.1}}):
        verdict = verdict_of(by_cost(floors={}, resamples=200, **policy))
        assert verdict.decision is Decision.INCONCLUSIVE
        assert any(said in reason for reason in verdict.reasons), verdict.reasons
        first = test_gate.judge(
            test_gate.contender("1", test_gate.GOOD), None, exam=test_gate.EXAM,
            gate=by_cost(floors={}, resamples=200, **policy),
        )  # fmt: skip
        assert first.decision is Decision.INCONCLUSIVE


def test_a_metric_that_is_not_installed_is_refused_with_the_nearest(place, importable):
    importable(place)
    with pytest.raises(ValidationError, match=r"no metric 'main_cost'\. Did you mean 'mean_cost'"):
        Gate(metric="main_cost")


RULES = """
from aios_platform.promotion.added import Finding
def raises(examined):
    raise OSError("no network")
def says_true(examined):
    return True
def not_finite(examined):
    return Finding(True, "fine", observed=float("nan"))
def writes(examined):
    examined.truth[:] = examined.candidate > 0.5
    examined.columns["size"][:] = 0
    return Finding(True, "fine")
def unasked(examined, least):
    return Finding(True, "fine")
"""


@pytest.fixture
def rules(broken):
    lines = [f"{n} = their_parts:{n}" for n in re.findall(r"def (\w+)", RULES)]
    lines.append("gone = not_there:rule")
    (broken / "their_parts-2.0.dist-info/entry_points.txt").write_text(
        "[aios_platform.gate_rules]\n" + "\n".join(lines) + "\n"
    )
    (broken / "their_parts.py").write_text(RULES)
    return broken


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"rule": "raises"}, "raises of their-parts 2.0 raised OSError: no network"),
        ({"rule": "says_true"}, "returned bool, no Finding"),
        ({"rule": "not_finite"}, "has no finite figure"),
        ({"rule": "unasked"}, "raised TypeError"),
        ({"rule": "gone"}, "cannot be imported"),
        ({"rule": "writes", "columns": ["height"]}, "no column 'height'"),
    ],
    ids=lambda value: value["rule"] if isinstance(value, dict) else "",
)
def test_a_broken_rule_never_promotes(rules, importable, rule, said):
    importable(rules)
    verdict = verdict_of(gate_with(rule))
    assert verdict.decision is Decision.INCONCLUSIVE
    (found,) = (each for each in verdict.rules if each.rule == f"added_{rule['rule']}")
    assert found.outcome is Outcome.UNKNOWN
    assert said in found.reason


def test_a_rule_cannot_change_what_the_gate_judges(rules, importable):
    importable(rules)
    twice = verdict_of(gate_with({"rule": "writes", "columns": ["size"]}))
    plain = verdict_of(gate_with())
    assert twice.decision is Decision.PROMOTE
    assert (twice.exam_digest, twice.candidate_metrics) == (
        plain.exam_digest, plain.candidate_metrics,
    )  # fmt: skip


def test_an_added_rule_can_be_waived_and_one_that_is_not_installed_is_refused(place, importable):
    importable(place)
    gate = gate_with(least_recall(0.99))
    check_waivable("added_least_recall", gate)
    with pytest.raises(PromotionError, match="no rule 'added_most_recall'"):
        check_waivable("added_most_recall", gate)
    with pytest.raises(ValidationError, match="Did you mean 'least_recall'"):
        AddedRule(rule="last_recall")
    with pytest.raises(ValidationError, match="rules names least_recall more than once"):
        Gate.model_validate({"rules": [least_recall(0.1), least_recall(0.2)]})


def test_feature_sql_of_the_package_takes_the_place_of_the_folder(place, importable):
    importable(place)
    content = MINIMAL | {"features": {"service": "toys_v1", "sql": "visits"}}
    names = Names(ModelDeclaration.model_validate(content), Path("unused"))
    assert names.sql_folder == place / "our_features"
    assert names.feature_tables == ("toy/features/visits",)
    digests = source_digests(ROOT / "aios_platform/defs/digits", names.sql_folder)
    assert set(digests) == {"platform", "model", "feature_repo", "feature_sql"}
    window = WindowSchedule(every="day", start="2024-01-01").window("2024-01-02")
    visits = pa.table(
        {
            "customer": ["a", "b", "a"],
            "visited_at": pa.array([window.start] * 3, pa.timestamp("us", "UTC")),
        }
    )
    (query,) = feature_queries(names.sql_folder)
    with closing(FeatureEngine({"visits": visits}, window)) as engine:
        _, batches = engine.run(query)
        rows = pa.Table.from_batches(batches).sort_by("customer")
    assert rows["visits"].to_pylist() == [2.0, 1.0]


def test_feature_sql_that_is_not_there_is_refused(place, importable, broken):
    with pytest.raises(ValidationError, match="no installed package adds 'visits'"):
        ModelDeclaration.model_validate(
            MINIMAL | {"features": {"service": "toys_v1", "sql": "visits"}}
        )
    (broken / "their_parts-2.0.dist-info/entry_points.txt").write_text(
        "[aios_platform.feature_sql]\nvisits = their_parts\n"
    )
    importable(broken)
    with pytest.raises(ExtensionError, match="no package, whose folder"):
        folder_of(Kind.FEATURE_SQL, "visits")


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
