"""The code location as Dagster sees it."""

import copy
import re
from datetime import UTC, datetime

import dagster as dg
import pytest
import yaml
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing import create_defs_folder_sandbox

from aios_platform.components import ModelLifecycle
from aios_platform.components.model_lifecycle.component import check_references, declared_services
from aios_platform.components.model_lifecycle.discovery import DEFS, declared_model, declared_models
from aios_platform.components.model_lifecycle.jobs import partitions_of
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.windows import Every, WindowSchedule
from aios_platform.errors import DeclarationError
from aios_platform.settings import settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20"),
]

GRAPH = {
    "raw": set(),
    "features": {"raw"},
    "online_features": {"features"},
    "training_set": {"features"},
    "candidate": {"training_set"},
    "verdict": {"candidate"},
    "champion": {"verdict"},
    "predictions": {"features", "champion"},
    "performance": {"predictions", "raw"},
    "drift": {"predictions"},
    "retrain_decision": {"performance", "drift"},
}
CHECKS = {
    ("raw", "valid", True),
    ("training_set", "no_leakage", True),
    ("verdict", "promoted", False),
    ("champion", "alias_in_step", False),
    ("predictions", "on_time", False),
    ("performance", "labels_complete", False),
    ("drift", "stable", False),
    ("drift", "no_data_fault", False),
}


@pytest.fixture(scope="module")
def loaded() -> dg.Definitions:
    from aios_platform.definitions import defs

    return defs()


def test_every_declared_model_has_the_whole_graph(loaded):
    specs = {spec.key: spec for spec in loaded.resolve_all_asset_specs()}
    for model in declared_models():
        found = {
            key.path[1]: {dep.asset_key.path[1] for dep in spec.deps}
            for key, spec in specs.items()
            if key.path[0] == model
        }
        assert found == GRAPH
        assert all(specs[dg.AssetKey([model, name])].owners for name in GRAPH)
        assert all(specs[dg.AssetKey([model, name])].description for name in GRAPH)


def test_bad_data_and_leaks_block_and_refusals_and_drift_do_not(loaded):
    graph = loaded.resolve_asset_graph()
    found = {
        (key.asset_key.path[1], key.name, graph.get_check_spec(key).blocking)
        for key in graph.asset_check_keys
        if key.asset_key.path[0] == "flight_delay"
    }
    assert found == CHECKS


def test_every_model_has_its_jobs_and_begins_with_sensors_and_schedule_as_declared(loaded):
    repository = loaded.get_repository_def()
    running = {n for n, names in declared_models().items() if names.automation == "RUNNING"}
    assert running == {"flight_delay"}, "examples of the past wait to be started"
    for model, names in declared_models().items():
        jobs = ("score", "measure", "retrain", "promote", "approval", "reproduce")
        assert {f"{model}__{job}" for job in jobs} <= set(repository.job_names)
        for name in (
            "new_window", "retrain_wanted", "approvals", "reconcile", "freshness", "error_budget",
            "rollout",
        ):  # fmt: skip
            sensor = repository.get_sensor_def(f"{model}__{name}")
            assert sensor.default_status.value == names.automation
        schedule = repository.get_schedule_def(f"{model}__window_closed")
        assert schedule.default_status.value == names.automation
        costly = repository.get_schedule_def(f"{model}__reproduce_monthly")
        assert costly.default_status.value == "STOPPED"


@pytest.mark.parametrize("every", Every)
def test_dagsters_partitions_are_the_windows(every):
    zone = "UTC" if every is Every.HOUR else "America/New_York"
    schedule = WindowSchedule(every=every, start="2013-01-01", timezone=zone)
    until = datetime(2013, 3, 20, 7, tzinfo=UTC)
    windows = schedule.windows(until)
    partitions = partitions_of(schedule)
    assert partitions.get_partition_keys(current_time=until) == [w.key for w in windows]
    found = partitions.time_window_for_partition_key(windows[-1].key)
    assert (found.start, found.end) == (windows[-1].start, windows[-1].end)


def flight_delay(**changes) -> Names:
    names = declared_model("flight_delay")
    attributes = copy.deepcopy(yaml.safe_load((names.folder / "defs.yaml").read_text()))
    for path, value in changes.items():
        section, field = path.split("__")
        attributes["attributes"][section][field] = value
    return Names(
        ModelLifecycle.get_model_cls().model_validate(attributes["attributes"]), names.folder
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features__service": "flight_delay_v11"}, "Did you mean 'flight_delay_v1'"),
        (
            {"source__entrypoint": "aios_platform.defs.flight_delay.source:read_windows"},
            "does not define.*Did you mean 'read_window'",
        ),
        ({"source__entrypoint": "aios_platform.defs.flights:read_window"}, "is not there"),
        ({"source__entrypoint": "no_such_package.x:read_window"}, "is not there"),
    ],
)
def test_a_reference_to_nothing_names_the_file_the_field_and_what_is_near(changes, message):
    with pytest.raises(DeclarationError, match=f"(?s)defs.yaml.*{message}"):
        check_references(flight_delay(**changes))


def test_a_model_without_feature_sql_is_refused(tmp_path):
    names = declared_model("flight_delay")
    with pytest.raises(DeclarationError, match="no feature SQL"):
        check_references(Names(names.declaration, tmp_path))


def test_services_are_found_without_importing_feast():
    assert "flight_delay_v1" in declared_services(settings().feature_repo)


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(DeclarationError) as caught:
        declared_model("flight_dealy")
    assert caught.value.remedy == "Did you mean 'flight_delay'?"


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"owner: .*", "ownr: team:x", r"unknown key 'ownr'.*Did you mean 'owner'"),
        (r"timezone: .*", "timezone: America/New_Yrok", "not an IANA time zone"),
        (r"service: .*", "service: flight_delay_v2", "Did you mean 'flight_delay_v1'"),
    ],
)
def test_a_wrong_file_is_refused_by_dagster_with_its_path(pattern, replacement, message):
    text = (DEFS / "flight_delay" / "defs.yaml").read_text()
    wrong, count = re.subn(pattern, replacement, text, count=1)
    assert count == 1
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.defs_folder_path / "model"
        (path / "features").mkdir(parents=True)
        (path / "defs.yaml").write_text(wrong)
        (path / "features" / "x.sql").write_text("SELECT 1")
        with pytest.raises(ComponentTreeException) as caught, sandbox.build_all_defs():
            pass
    told = "".join(_chain(caught.value))
    assert re.search(f"(?s){message}", told), told
    assert "defs.yaml" in told


def _chain(error: BaseException | None):
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__
