"""The only reader of the environment.

Each setting is an environment variable ``AIOS_<NAME>``; `docs/operations.md` lists them all.
"""

import os
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from aios_platform.errors import SettingsError

PROJECT_ROOT = Path(__file__).resolve().parents[1]
# Where an engine mounts secrets.
SECRETS = Path("/run/secrets")


# What each output of alerts needs, all of it.
_OUTPUTS = {
    "webhook": ("alert_webhook_url", "alert_webhook_secret"),
    "email": ("alert_smtp_url", "alert_email_from", "alert_email_to"),
}


def _given(value: SecretStr | str | None) -> bool:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return bool(text and text.strip(" ,"))


class Profile(StrEnum):
    """How an installation is laid out; `profiles.py` says what each maps to."""

    LOCAL = "local"
    TEAM = "team"
    CLUSTER = "cluster"


class Settings(BaseSettings):
    """Where the platform keeps its state and how it reaches its stores."""

    model_config = SettingsConfigDict(
        env_prefix="AIOS_",
        frozen=True,
        extra="ignore",
        # A file of the setting's name, e.g. aios_database_url; a variable goes before it.
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
    )

    profile: Profile = Field(
        default=Profile.LOCAL,
        description="One machine, a team's server, or a cluster (docs/deployment.md).",
    )
    home: Path = Field(
        default=Path(".aios"),
        description="Folder of everything local: embedded Postgres, artifacts, logs.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="postgresql:// URL of the server; unset, an embedded Postgres is started.",
    )
    artifacts: str | None = Field(
        default=None, description="fsspec URL of the artifact root; default <home>/artifacts."
    )
    redis: SecretStr | None = Field(
        default=None,
        description="host:port[,password=...] of Feast's store in a cluster; unset, Postgres.",
    )
    ray_address: str | None = Field(
        default=None,
        description="Ray that trains a replay's yardsticks in a cluster; unset, a process does.",
    )
    feature_repo: Path = Field(
        default=PROJECT_ROOT / "feature_repo", description="Folder of the Feast repository."
    )
    defs: Path = Field(
        default=PROJECT_ROOT / "aios_platform" / "defs",
        description="Folder of the declarations that the gateway serves.",
    )
    datasets: Path | None = Field(
        default=None,
        description="Folder of data sets that somebody downloaded; default <home>/datasets.",
    )
    metrics_folder: Path | None = Field(
        default=None, description="Where the gateway's worker processes add up their metrics."
    )
    serve_models: str | None = Field(
        default=None, description="Models that the gateway serves, separated by commas; unset, all."
    )
    serve_keys: bool = Field(
        default=False, description="Whether the gateway wants a key of everybody."
    )
    trace_share: float = Field(
        default=0.01, ge=0, le=1, description="Share of requests that the gateway traces."
    )
    trace_endpoint: str | None = Field(
        default=None, description="OTLP endpoint for the gateway's traces; unset, no traces."
    )
    training_memory_mib: int = Field(
        default=4096,
        ge=0,
        description="Encoded training rows, and those held out, that are larger than this lie in "
        "a file instead of memory.",
    )
    retention_days: int = Field(
        default=400,
        ge=30,
        description="Days for which records of served traffic and resolved alerts are kept.",
    )
    log_level: str = Field(default="INFO", description="Level of the platform's own log lines.")
    mlflow_url: str = Field(
        default="http://127.0.0.1:5000", description="Where `aios ui` serves MLflow's pages."
    )
    reports_url: str = Field(
        default="http://127.0.0.1:3001", description="Where `aios ui` serves the drift reports."
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="Key of the principal that acts; unset, the OS user (`aios principals`).",
    )
    alert_webhook_url: SecretStr | None = Field(
        default=None, description="http(s) URL that alerts are posted to."
    )
    alert_webhook_secret: SecretStr | None = Field(
        default=None,
        description="Signs what is posted: 'whsec_' and base64, or any other text as it is.",
    )
    alert_smtp_url: SecretStr | None = Field(
        default=None,
        description="smtp://, smtps:// or smtp+starttls://user:password@host:port for alerts.",
    )
    alert_email_from: str | None = Field(default=None, description="Sender of alerts by e-mail.")
    alert_email_to: str | None = Field(
        default=None, description="Recipients of alerts by e-mail, separated by commas."
    )
    alert_extensions: str | None = Field(
        default=None,
        description="Outputs of alerts that installed packages add, by name, separated by commas.",
    )

    @model_validator(mode="after")
    def _whole_outputs(self) -> "Settings":
        """An output that is half configured would be silent when it is needed."""
        for group in _OUTPUTS.values():
            missing = [name for name in group if not _given(getattr(self, name))]
            if missing and len(missing) < len(group):
                given = next(name for name in group if name not in missing)
                raise ValueError(
                    f"AIOS_{given.upper()} is set without "
                    f"{' and '.join(f'AIOS_{name.upper()}' for name in missing)}"
                )
        return self

    @model_validator(mode="after")
    def _added_outputs(self) -> "Settings":
        """Each name is one output: what is due is kept by it."""
        names = self.added_alert_outputs
        twice = [name for name in names if names.count(name) > 1 or name in ("log", *_OUTPUTS)]
        if twice:
            raise ValueError(
                f"AIOS_ALERT_EXTENSIONS names '{twice[0]}', which is another output already"
            )
        return self

    @model_validator(mode="after")
    def _shared_stores(self) -> "Settings":
        """What several machines work on lies on none of them."""
        profile = self.profile
        if profile is not Profile.LOCAL and self.database_url is None:
            raise ValueError(f"AIOS_PROFILE={profile} needs AIOS_DATABASE_URL")
        if profile is Profile.CLUSTER and "://" not in (self.artifacts or ""):
            raise ValueError(f"AIOS_PROFILE={profile} needs AIOS_ARTIFACTS on an object store")
        for name in ("redis", "ray_address"):
            if profile is not Profile.CLUSTER and getattr(self, name) is not None:
                raise ValueError(f"AIOS_{name.upper()} needs AIOS_PROFILE={Profile.CLUSTER}")
        return self

    @property
    def alert_outputs(self) -> tuple[str, ...]:
        """Names of the outputs that alerts are told to; the log always is one."""
        return (
            "log",
            *(name for name, group in _OUTPUTS.items() if _given(getattr(self, group[0]))),
            *self.added_alert_outputs,
        )

    @property
    def added_alert_outputs(self) -> tuple[str, ...]:
        """Names of the outputs of alerts that installed packages add."""
        names = (name.strip() for name in (self.alert_extensions or "").split(","))
        return tuple(name for name in names if name)

    @property
    def home_path(self) -> Path:
        """The home folder as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def datasets_path(self) -> Path:
        """The folder of downloaded data sets as an absolute path."""
        return (self.datasets or self.home_path / "datasets").expanduser().resolve()

    @property
    def artifact_root(self) -> str:
        """The artifact root as an absolute path or URL, without a trailing slash."""
        root = self.artifacts or str(self.home_path / "artifacts")
        return root.rstrip("/") if "://" in root else str(Path(root).expanduser().resolve())


@cache
def settings() -> Settings:
    """Read the settings once per process.

    Raises:
        SettingsError: A variable has a value of the wrong type.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise SettingsError(
                f"{first['msg'].removeprefix('Value error, ')}.",
                remedy="Set what belongs together; docs/operations.md lists every setting.",
            ) from None
        name = "AIOS_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(
            f"The setting {name} is wrong: {first['msg']}.",
            remedy=f"Correct or unset {name}; docs/operations.md lists every setting.",
        ) from None


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child process: ours, with `extra` on top, and without the API key.

    A person's key is not for servers: what is started from a page or a schedule is not their doing.
    """
    ours = {name: value for name, value in os.environ.items() if name != "AIOS_API_KEY"}
    return {**ours, **extra}


def secret(name: str) -> str:
    """A variable that a declaration names, e.g. a database's password; it is never shown.

    Raises:
        SettingsError: It is not set.
    """
    value = os.environ.get(name)
    if value is None:
        raise SettingsError(
            f"The environment variable {name}, which a declaration names, is not set.",
            remedy=f"Set {name} where the platform runs.",
        )
    return value


def export(variables: Mapping[str, str]) -> None:
    """Set variables that libraries read from the environment of this process."""
    os.environ.update(variables)
