"""Commands about alerts: what is wrong now, and who was told."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aios_platform.alerts.delivery import Told
    from aios_platform.contracts.alerts import RaisedAlert

app = typer.Typer(
    help="What is wrong now, on what evidence, and who was told. docs/runbook.md says what to do "
    "about each kind; the daemon delivers to the log, a webhook, e-mail and added outputs "
    "(AIOS_ALERT_..., see docs/operations.md).",
    no_args_is_help=True,
)
Number = Annotated[int, typer.Argument(metavar="ID", help="Number of the alert; `list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]


@app.command("list")
def list_alerts(
    model: Annotated[
        str | None, typer.Argument(help="Only about this model (or 'platform').")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that were resolved.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List open alerts, newest first.

    An alert is one cause: while it is open it is counted and nobody is told again. The platform
    resolves what it sees mended; `aios alerts resolve` does the rest.
    """
    from aios_platform.alerts.outbox import alerts
    from aios_platform.database import database

    found = alerts(database(), subject=model, open_only=not every, limit=limit)
    for raised in found:
        print(raised.model_dump_json() if as_json else _line(raised))
    if not found and not as_json:
        print("No alert." if every else "No open alert.")


@app.command("show")
def show(number: Number, as_json: AsJson = False) -> None:
    """Show an alert with its evidence, its section of the runbook, and who was told."""
    import json

    from aios_platform.alerts.delivery import told
    from aios_platform.alerts.outbox import alert_of
    from aios_platform.alerts.rendering import as_text
    from aios_platform.database import database

    raised, outputs = alert_of(database(), number), told(database(), number)
    if as_json:
        listed = [one.model_dump(mode="json") for one in outputs]
        print(json.dumps({**raised.model_dump(mode="json"), "outputs": listed}))
        return
    print(as_text(raised))
    for one in outputs:
        print(_told(one))
    if not outputs:
        print("  told      nobody: it was raised by a replay of the past")


@app.command("resolve")
def resolve(
    number: Number,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads it later.")],
    as_json: AsJson = False,
) -> None:
    """Close an alert: its cause is gone. Needs the role operator.

    Who closed it and why stay with it. When the cause comes back it is a new alert, and told
    again. Closing it twice is the same as once.
    """
    from aios_platform.access.principals import Role, require
    from aios_platform.alerts.outbox import resolve_one
    from aios_platform.database import database

    who = require(Role.OPERATOR, database=database())
    done = resolve_one(database(), number, by=who.name, reason=reason)
    if as_json:
        print(done.model_dump_json())
        return
    print(f"Alert {number} was resolved at {done.resolved_at:%Y-%m-%d %H:%M %Z} by "
          f"{done.resolved_by}: {done.resolution}")  # fmt: skip


@app.command("test")
def trial(as_json: AsJson = False) -> None:
    """Send a test alert to each configured output, and say whether it was delivered.

    It goes out at once, is tried once, and is not kept. Exit status 1 where an output did not
    take it. Run it after each change of an AIOS_ALERT_... setting.
    """
    import json

    from aios_platform.alerts.outputs import configured_outputs
    from aios_platform.alerts.rendering import trial_batch
    from aios_platform.errors import AlertError
    from aios_platform.settings import settings

    failed: dict[str, str] = {}
    outputs = configured_outputs(settings())
    for output in outputs:
        try:
            output.send(trial_batch())
        except AlertError as error:
            failed[output.name] = str(error)
    for output in outputs:
        error_text = failed.get(output.name)
        if as_json:
            delivered = error_text is None
            print(json.dumps({"output": output.name, "delivered": delivered, "error": error_text}))
        else:
            print(f"{output.name:8} {'delivered' if error_text is None else error_text}")
    if len(outputs) == 1 and not as_json:
        print("Only the log is told: docs/operations.md says how to set a webhook or e-mail.")
    raise typer.Exit(1 if failed else 0)


@app.command("deliver")
def deliver(as_json: AsJson = False) -> None:
    """Send what is due now, as the daemon does every 30 seconds.

    What an output does not take is sent again: after 30 seconds, then ever less often, for three
    days. Exit status 1 where something was not taken. Safe to run beside the daemon.
    """
    import json
    from dataclasses import asdict
    from datetime import UTC, datetime

    from aios_platform.alerts.delivery import deliver_due
    from aios_platform.alerts.outputs import configured_outputs
    from aios_platform.database import database
    from aios_platform.settings import settings

    report = deliver_due(database(), configured_outputs(settings()), datetime.now(UTC))
    print(json.dumps(asdict(report)) if as_json else report)
    for failure in report.failures:
        if not as_json:
            print(f"  {failure}")
    raise typer.Exit(1 if report.failures else 0)


def _line(raised: "RaisedAlert") -> str:
    alert = raised.alert
    closed = f"  (resolved by {raised.resolved_by})" if raised.resolved_at is not None else ""
    return (
        f"{raised.id:6}  {raised.last_seen:%Y-%m-%d %H:%M}  {alert.severity:8} "
        f"{alert.subject:20} {alert.kind:18} {raised.count:4} x  {alert.summary}{closed}"
    )


def _told(one: "Told") -> str:
    line = f"  told      {one.output}: {one.state}"
    if one.attempts:
        line += f", attempt {one.attempts}"
    if one.next_attempt_at is not None:
        line += f", next {one.next_attempt_at:%Y-%m-%d %H:%M %Z}"
    return f"{line}; {one.error}" if one.error else line
