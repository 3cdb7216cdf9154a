"""The app, its commands in the order of `aios --help`, and its entry point."""

import sys

import click
import typer

from aios_platform.cli import (
    alerts,
    approvals,
    backup,
    callers,
    daemon,
    decisions,
    deployment,
    doctor,
    extensions,
    initialise,
    ledger,
    lifecycle,
    package,
    principals,
    promotion,
    provenance,
    replay,
    reviews,
    rollout,
    score,
    serve,
    tuning,
    worker,
    workstation,
)
from aios_platform.errors import AiosError
from aios_platform.preloading import collect_rarely

app = typer.Typer(
    name="aios",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Declare a model once; run, watch and govern its whole life. "
    "Start with `aios run MODEL`, then `aios ui`.",
)


@app.callback()
def _configure() -> None:
    from aios_platform import telemetry
    from aios_platform.profiles import require_filesystem
    from aios_platform.settings import settings

    telemetry.configure(settings().log_level)
    require_filesystem(settings())


app.command()(initialise.init)
app.command()(lifecycle.run)
app.command()(replay.replay)
app.command()(lifecycle.backfill)
app.command()(lifecycle.status)
app.command()(lifecycle.models)
app.command()(decisions.decisions)
app.command()(promotion.train)
app.command()(tuning.tune)
app.command()(promotion.promote)
app.command()(promotion.rollback)
app.command()(package.package)
app.command()(serve.serve)
app.command()(rollout.rollout)
app.command()(reviews.reviews)
app.command()(worker.worker)
app.command()(worker.queue)
app.add_typer(approvals.app, name="approvals")
app.add_typer(promotion.waivers, name="waivers")
app.add_typer(alerts.app, name="alerts")
app.add_typer(ledger.app, name="ledger")
app.add_typer(principals.app, name="principals")
app.add_typer(callers.app, name="callers")
app.add_typer(score.app, name="score")
app.command()(provenance.explain)
app.command()(provenance.follow)
app.command()(provenance.card)
app.command()(provenance.impact)
app.command()(provenance.reproduce)
app.command()(workstation.ui)
app.command()(daemon.daemon)
app.command()(deployment.service)
app.command()(deployment.stack)
app.command()(workstation.env)
app.command()(doctor.doctor)
app.command()(extensions.extensions)
app.command()(backup.backup)
app.command()(backup.restore)
app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)(workstation.feast)


def main() -> None:
    """Entry point: our own errors become one readable line and exit status 1."""
    # A misspelt option is an error, and 2 is a verdict of `aios promote`.
    click.UsageError.exit_code = 1
    collect_rarely()
    try:
        app()
    except AiosError as error:
        print(f"error: {error.what}", file=sys.stderr)
        if error.remedy:
            print(f"  try: {error.remedy}", file=sys.stderr)
        sys.exit(1)
