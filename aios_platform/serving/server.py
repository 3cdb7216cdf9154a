"""Runs the gateway: one process, or several that share the port."""

import ipaddress
import logging
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.record import nearest
from aios_platform.database import Database, database
from aios_platform.declarations import declarations
from aios_platform.errors import DeclarationError, SettingsError
from aios_platform.serving.access import Access, public_bind_allowed
from aios_platform.serving.application import Application
from aios_platform.serving.connection import sweep
from aios_platform.serving.gateway import Gateway
from aios_platform.serving.idempotency import Idempotency
from aios_platform.serving.loading import Origins
from aios_platform.serving.protocol import GatewayProtocol
from aios_platform.serving.recording import Recorder
from aios_platform.serving.tracing import tracer
from aios_platform.settings import Settings, export, settings
from aios_platform.telemetry import configure

logger = logging.getLogger(__name__)

FACTORY = "aios_platform.serving.server:application"
DRAIN_SECONDS = 25
BACKLOG = 2048
# Each process looks ten times a second whether it was told to end; a busy machine delays that.
OTHERS_SECONDS = 0.5
# Beyond twice the longest deadline, until a silent holder's idempotency key is free.
LEASE_MORE_SECONDS = 3.0


@dataclass(frozen=True)
class Options:
    """How to listen.

    Attributes:
        host: Address to bind.
        port: Port; 0 takes a free one.
        workers: Processes that share the port.
        certificate: TLS certificate chain, PEM.
        key: Its private key, PEM.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    certificate: Path | None = None
    key: Path | None = None


class _Workers(Multiprocess):
    """Processes that share a port."""

    def terminate_all(self) -> None:
        """Tell them to end."""
        # While this process holds the port, callers reach it, and nobody answers.
        for listening in self.sockets:
            listening.close()
        super().terminate_all()


def serve(options: Options, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; what is under way is answered first.

    Args:
        options: How to listen.
        say: Tells a person where.

    Raises:
        SettingsError: The port is taken, TLS is half configured, or a public address is to be
            bound while nobody holds a key.
        DatabaseUnavailable: Postgres does not answer.
    """
    opened = database()
    public = not _is_loopback(options.host)
    if public and not public_bind_allowed(opened):
        raise SettingsError(
            f"{options.host} can be reached from other machines, and no API key was issued: "
            "everybody could call.",
            remedy="Issue one first (`aios principals add`, `aios callers grant`), or bind "
            "127.0.0.1.",
        )
    if (options.certificate is None) is not (options.key is None):
        raise SettingsError(
            "TLS needs both a certificate and its key.", remedy="Give --tls-cert and --tls-key."
        )
    variables = {
        "AIOS_HOME": str(settings().home_path),
        "AIOS_DATABASE_URL": opened.server_url,
        "AIOS_ARTIFACTS": settings().artifact_root,
        # Idle threads of ONNX Runtime must not spin on cores that others need.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if public:
        variables["AIOS_SERVE_KEYS"] = "true"
    listening = _bind(options.host, options.port)
    config = uvicorn.Config(
        FACTORY,
        factory=True,
        http=GatewayProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        workers=options.workers,
        backlog=BACKLOG,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )
    scheme = "https" if options.certificate else "http"
    host, port = listening.getsockname()[:2]
    say(f"Serving on {scheme}://{host}:{port}  (/docs, /readyz, /metrics)")
    if options.workers == 1:
        # This process goes on with the database that it has opened.
        export({name: v for name, v in variables.items() if name != "AIOS_DATABASE_URL"})
        settings.cache_clear()
        # uvicorn raises the signal that ended it once more, which would not be a clean end.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listening])
        return
    folder = Path(tempfile.mkdtemp(prefix="aios-metrics-"))
    shared = {"AIOS_METRICS_FOLDER": str(folder), "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    export({**variables, **shared})
    try:
        _Workers(config, sockets=[listening]).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def application() -> Application:
    """The application of one process, by its settings."""
    configure(settings().log_level)
    gateway = build_gateway(database(), settings())
    GatewayProtocol.gateway = gateway
    most = max((d.serving.max_body_mib for d in gateway.declarations.values()), default=16.0)
    most_bytes = int(most * (1 << 20))
    GatewayProtocol.most_bytes = most_bytes
    # Only processes that share a port have a folder to add up their metrics in.
    GatewayProtocol.others_seconds = OTHERS_SECONDS if settings().metrics_folder else 0.0
    return Application(gateway, most_bytes=most_bytes, beside=sweep)


def build_gateway(opened: Database, configuration: Settings) -> Gateway:
    """The gateway that the settings describe.

    Raises:
        DeclarationError: A declaration is wrong, or a model to serve is not declared.
        SettingsError: The endpoint for traces cannot be used.
    """
    declared = {name: found for name, (found, _) in declarations(configuration.defs).items()}
    chosen = _chosen(declared, configuration.serve_models)
    shares = {name: found.serving.record.share for name, found in chosen.items()}
    longest = max((d.serving.deadline_ms for d in chosen.values()), default=0.0) / 1000
    rows = max((d.serving.record.buffer_rows for d in chosen.values()), default=1)
    return Gateway(
        database=opened,
        origins=Origins(
            opened, ArtifactStore(configuration.artifact_root), configuration.feature_repo
        ),
        declarations=chosen,
        access=Access(opened, required=configuration.serve_keys),
        recorder=Recorder(opened, buffer_rows=rows, share=lambda model: shares.get(model, 1.0)),
        idempotency=Idempotency(opened, lease_seconds=2 * longest + LEASE_MORE_SECONDS),
        tracer=tracer(
            "aios-gateway",
            share=configuration.trace_share,
            endpoint=configuration.trace_endpoint,
        ),
    )


def _chosen(
    declared: dict[str, ModelDeclaration], wanted: str | None
) -> dict[str, ModelDeclaration]:
    if wanted is None:
        return declared
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name not in declared:
            raise DeclarationError(
                f"No model '{name}' is declared.", remedy=nearest(name, declared)
            )
    return {name: declared[name] for name in names}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}.",
            remedy="Choose another --port, or stop what listens there.",
        ) from error
    listening.set_inheritable(True)
    return listening
