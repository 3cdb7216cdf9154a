"""The same application under Ray Serve, for replicas on several machines (extra `ray`)."""

from typing import Any

from aios_platform.errors import SettingsError
from aios_platform.serving.server import application


def ray_application(replicas: int = 1, *, cpus: float = 1.0) -> Any:
    """The gateway as a Ray Serve application: `serve.run(ray_application(4))`.

    Each replica reads the settings (AIOS_DATABASE_URL, AIOS_ARTIFACTS, ...) of its own process,
    follows the ledger by itself and checks keys. Ray's proxy listens in place of the gateway's own
    server, so the limits on connections and on slow clients are the proxy's.

    Args:
        replicas: How many.
        cpus: Cores that Ray reserves for each.

    Returns:
        What `ray.serve.run` takes.

    Raises:
        SettingsError: Ray is not installed.
    """
    try:
        from ray import serve
    except ImportError:
        raise SettingsError(
            "Ray is not installed.", remedy="pip install 'aios-platform[ray]'"
        ) from None

    # Built by each replica when it starts, not where this is called.
    ingress: Any = serve.ingress(application)()
    deployment: Any = serve.deployment(
        ingress,
        name="aios-gateway",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus},
    )
    return deployment.bind()
