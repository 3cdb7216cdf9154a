"""Commands that show, verify, anchor and export the ledger."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aios_platform.ledger.anchors import Anchor
    from aios_platform.ledger.entries import LedgerEntry
    from aios_platform.ledger.verification import Verification

app = typer.Typer(
    help="Show, verify, anchor and export the ledger: every decision, by whom, on what evidence. "
    "Its rows are chained by hashes; the database refuses to change them.",
    no_args_is_help=True,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a machine to read.")]


@app.command("show")
def show(
    model: Annotated[
        str | None, typer.Argument(help="Only rows about this model (or 'principal:NAME').")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Only this kind: verdict, promotion, rollback, approval, waiver, ..."),
    ] = None,
    row: Annotated[int | None, typer.Option(help="Only this row, whole.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest rows first; at most this many.")] = 20,
    as_json: Json = False,
) -> None:
    """Show rows, newest first; with --json each whole, one a line."""
    from aios_platform.database import database
    from aios_platform.ledger.entries import entries, entry

    if row is not None:
        one = entry(database(), row)
        print(one.model_dump_json() if as_json else _whole(one))
        return
    for found in entries(database(), subject=model, kind=kind, limit=limit):
        print(found.model_dump_json() if as_json else _line(found))


@app.command("verify")
def verify(
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            help="SEQ:HASH, or a file that `aios ledger anchor` wrote; may be repeated. The "
            "anchors in the artifact root are used in any case."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Verify an export instead of the database; needs no database."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify the hash chain; name the first broken link. Exit status 1 where one is.

    A chain alone cannot show that its end was cut off, or that all of it was made anew. Anchors
    show that: keep some where the database's administrator cannot write.
    """
    from aios_platform.ledger import verification

    given = [_anchor(value) for value in anchor or ()]
    if file is not None:
        found = verification.verify_file(file, given)
    else:
        from aios_platform.artifacts import ArtifactStore
        from aios_platform.database import database
        from aios_platform.ledger.anchors import anchors
        from aios_platform.settings import settings

        kept = anchors(ArtifactStore(settings().artifact_root))
        found = verification.verify(database(), [*kept, *given])
    if as_json:
        print(found.model_dump_json())
        raise typer.Exit(0 if found.holds else 1)
    found.require()
    print(_verified(found))


@app.command("anchor")
def anchor_head(as_json: Json = False) -> None:
    """Verify what is new, and put the ledger's head aside, written once, in the artifact root.

    Run it daily, and send the line it prints to somewhere else: a mail, a ticket, a sheet of
    paper. Nobody can shorten or rewrite the ledger before it without being found out.
    """
    from aios_platform.artifacts import ArtifactStore
    from aios_platform.database import database
    from aios_platform.ledger import anchors
    from aios_platform.settings import settings

    made = anchors.anchor(database(), ArtifactStore(settings().artifact_root))
    if made is None:
        print("null" if as_json else "The ledger has no rows yet: there is nothing to anchor.")
    else:
        print(made.model_dump_json() if as_json else made.short)


@app.command("export")
def export(
    since: Annotated[int, typer.Option(min=0, help="Only rows after this one.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="File to write; default standard output.")
    ] = None,
) -> None:
    """Write the ledger as JSON lines that `aios ledger verify --file` can verify offline.

    Each line holds the very bytes that were hashed, and the hash (docs/ledger.md).
    """
    import sys

    from aios_platform.database import database
    from aios_platform.ledger.chain import lines, write_lines

    if output is not None:
        count = write_lines(database(), output, after=since)
        print(f"{count} rows in {output}", file=sys.stderr)
        return
    for line in lines(database(), after=since):
        sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _anchor(value: str) -> "Anchor":
    from aios_platform.ledger.anchors import parse, read

    path = Path(value)
    return read(path.read_bytes(), value) if path.is_file() else parse(value)


def _verified(found: "Verification") -> str:
    if not found.rows:
        return "The ledger has no rows."
    lines = [
        f"The chain holds: {found.rows} rows, {found.first} to {found.last}, "
        f"{found.anchors} anchors met.",
        f"Head {found.last}:{found.hash}",
    ]
    if found.begins_after:
        lines.append(
            f"It begins after a row with the hash {found.begins_after[:12]}, which is not here."
        )
    if found.clock_set_back:
        lines.append(
            f"{found.clock_set_back} rows were written while the server's clock was behind the "
            "row before; each has that row's time, and the clock's own beside it."
        )
    return "\n".join(lines)


def _line(row: "LedgerEntry") -> str:
    line = (
        f"{row.seq:6}  {row.recorded_at:%Y-%m-%d %H:%M:%S}  {row.principal:18} "
        f"{row.subject:20} {row.kind:18} {_gist(row.payload)}"
    )
    # What somebody wrote as a reason must not pass for another row, or steer the terminal.
    return "".join(letter if letter.isprintable() else "·" for letter in line)


def _whole(row: "LedgerEntry") -> str:
    import json

    head = [
        ("row", row.seq), ("recorded", row.recorded_at), ("principal", row.principal),
        ("kind", row.kind), ("subject", row.subject), ("evidence", ", ".join(row.evidence) or "-"),
        ("previous", row.previous), ("hash", row.hash),
    ]  # fmt: skip
    shown = "\n".join(f"{name:10} {value}" for name, value in head)
    return f"{shown}\n{json.dumps(row.payload, indent=2, ensure_ascii=False)}"


def _gist(payload: dict[str, object]) -> str:
    for key in ("decision", "champion", "verdict", "rollout"):
        part = payload.get(key)
        if isinstance(part, dict):
            parts = (part.get(k) for k in ("version", "candidate_version", "decision", "window",
                                           "action", "cause", "mode", "state"))  # fmt: skip
            return " ".join(str(p) for p in parts if p is not None)
    plain = {k: v for k, v in payload.items() if isinstance(v, str | int | bool)}
    return " ".join(f"{key}={value}" for key, value in plain.items() if "digest" not in key)[:80]
