"""Each profile is loaded, and says what it lacks."""

import sys

import pytest
import yaml

from aios_platform import profiles, services
from aios_platform import settings as settings_module
from aios_platform.errors import SettingsError
from aios_platform.settings import PROJECT_ROOT, Profile, settings

TEAM = {"AIOS_PROFILE": "team", "AIOS_DATABASE_URL": "postgresql://a:b@db.example/postgres"}
CLUSTER = TEAM | {"AIOS_PROFILE": "cluster", "AIOS_ARTIFACTS": "memory://aios"}
VARIABLES = {"local": {}, "team": TEAM, "cluster": CLUSTER}


@pytest.fixture
def configured(monkeypatch, tmp_path):
    monkeypatch.setenv("AIOS_HOME", str(tmp_path))

    def set_(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings_module.settings.cache_clear()
        return settings()

    yield set_
    settings_module.settings.cache_clear()


@pytest.fixture
def without(monkeypatch):
    """As if a package were not installed."""

    def hide(module):
        monkeypatch.setitem(sys.modules, module, None)
        real = profiles.importlib.util.find_spec
        monkeypatch.setattr(
            profiles.importlib.util,
            "find_spec",
            lambda name: None if name == module else real(name),
        )

    return hide


@pytest.mark.parametrize("profile", VARIABLES)
def test_dagster_takes_the_instance_of_each_profile(profile, configured):
    if profile == "cluster":
        pytest.importorskip("dagster_k8s")
    from dagster._core.instance.config import dagster_instance_config
    from dagster._core.instance.ref import InstanceRef

    assert configured(**VARIABLES[profile]).profile == profile
    home = services.dagster_home()
    config, _ = dagster_instance_config(str(home))
    assert config["telemetry"] == {"enabled": False}
    assert config["run_monitoring"]["enabled"] is True
    assert config["run_retries"] == {"enabled": False}
    assert config["concurrency"]["pools"]["granularity"] == "run"
    ref = InstanceRef.from_dir(str(home))
    assert ref.run_coordinator_data.class_name == "QueuedRunCoordinator"
    launcher = {"cluster": "K8sRunLauncher"}.get(profile, "DefaultRunLauncher")
    assert ref.run_launcher_data.class_name == launcher


def test_the_launcher_of_the_cluster_takes_its_configuration(configured):
    k8s = pytest.importorskip("dagster_k8s")
    from dagster._config import process_config
    from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager

    config = profiles.instance_configuration(configured(**CLUSTER))
    for kind, part in (
        (k8s.K8sRunLauncher, "run_launcher"),
        (NoOpComputeLogManager, "compute_logs"),
    ):
        assert config[part]["class"] == kind.__name__
        found = process_config(kind.config_type(), config[part].get("config", {}))
        assert found.success, found.errors


def test_feast_has_its_online_store_in_redis_and_all_else_as_it_was(configured):
    pytest.importorskip("redis")
    from aios_platform.features.redis_store import NewestWinsRedisOnlineStoreConfig
    from aios_platform.features.store import open_feature_store

    found = configured(**CLUSTER, AIOS_REDIS="redis.example:6379,password=hush")
    store = open_feature_store(found.feature_repo, "postgresql+psycopg2://a:b@db.example/feast")
    assert isinstance(store.config.online_store, NewestWinsRedisOnlineStoreConfig)
    assert store.config.online_store.connection_string == "redis.example:6379,password=hush"
    files = [
        yaml.safe_load((PROJECT_ROOT / "feature_repo" / name).read_text())
        for name in ("feature_store.yaml", "feature_store.redis.yaml")
    ]
    for each in files:
        each.pop("online_store")
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("module", "extra", "variables", "use"),
    [
        ("dagster_k8s", "k8s", CLUSTER, lambda found: services.dagster_home()),
        (
            "redis", "redis", CLUSTER | {"AIOS_REDIS": "r:6379"},
            lambda found: profiles.feature_store_file(found, found.feature_repo),
        ),
        ("s3fs", "s3", CLUSTER | {"AIOS_ARTIFACTS": "s3://b/aios"}, profiles.require_filesystem),
        ("gcsfs", "gcs", CLUSTER | {"AIOS_ARTIFACTS": "gs://b/aios"}, profiles.require_filesystem),
        (
            "ray", "ray", CLUSTER | {"AIOS_RAY_ADDRESS": "ray://r:10001"},
            lambda found: _ray_trainer(found.ray_address),
        ),
    ],
)  # fmt: skip
def test_a_missing_extra_is_named(module, extra, variables, use, configured, without):
    found = configured(**variables)
    without(module)
    with pytest.raises(SettingsError) as refused:
        use(found)
    assert f"aios-platform[{extra}]" in refused.value.remedy
    assert module in refused.value.what


def _ray_trainer(address):
    from aios_platform.replay.ray_trainer import RayYardstickTrainer

    return RayYardstickTrainer(None, None, "", address)


def test_the_extras_that_errors_name_are_declared():
    import tomllib

    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    assert {"k8s", "s3", "gcs", "redis", "ray"} <= project["optional-dependencies"].keys()


@pytest.mark.parametrize(
    ("variables", "lacks"),
    [
        ({"AIOS_PROFILE": "team"}, "AIOS_DATABASE_URL"),
        (TEAM | {"AIOS_PROFILE": "cluster"}, "AIOS_ARTIFACTS"),
        (CLUSTER | {"AIOS_ARTIFACTS": "/some/folder"}, "object store"),
        (TEAM | {"AIOS_REDIS": "r:6379"}, "AIOS_PROFILE=cluster"),
        ({"AIOS_PROFILE": "laptop"}, "'local', 'team' or 'cluster'"),
    ],
)
def test_a_profile_says_what_it_lacks(variables, lacks, configured):
    with pytest.raises(SettingsError) as refused:
        configured(**variables)
    assert lacks in refused.value.what
    assert "postgresql://a:b" not in str(refused.value)


def test_a_local_installation_needs_nothing(configured):
    found = configured()
    assert found.profile is Profile.LOCAL
    assert profiles.instance_configuration(found) == yaml.safe_load(
        (PROJECT_ROOT / "dagster.yaml").read_text()
    )
