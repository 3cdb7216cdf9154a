"""The command that serves the live models over HTTP."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer


def serve(
    model: Annotated[
        list[str] | None,
        typer.Argument(help="Models to serve; default, every declared one that has a champion."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to bind; one beyond this machine needs API keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that share the port; about one per core.")
    ] = 1,
    tls_cert: Annotated[
        Path | None, typer.Option(help="TLS certificate chain, PEM.", exists=True, dir_okay=False)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Its private key, PEM.", exists=True, dir_okay=False)
    ] = None,
    require_keys: Annotated[
        bool, typer.Option("--require-keys", help="Want an API key also on this machine.")
    ] = False,
) -> None:
    """Serve the live models over HTTP, until Ctrl-C or SIGTERM.

    Promotions, rollbacks and rollouts are followed within seconds, without a restart. Pages:
    /docs (what to send), /readyz (what serves), /metrics (Prometheus). `docs/serving.md` has
    the rest.
    """
    from aios_platform.serving.server import Options, serve
    from aios_platform.settings import export, settings

    variables = {"AIOS_SERVE_MODELS": ",".join(model)} if model else {}
    if require_keys:
        variables["AIOS_SERVE_KEYS"] = "true"
    export(variables)
    settings.cache_clear()
    serve(Options(host, port, workers, tls_cert, tls_key), partial(print, flush=True))
