"""The reference of the commands, from the commands: `python -m aios_platform.cli.reference`."""

import click
from typer.main import get_command

from aios_platform.cli.main import app


def reference() -> str:
    """Every command with its arguments and options, Markdown."""
    root = get_command(app)
    lines = [
        "# Commands",
        "",
        "Made from the commands themselves: `python -m aios_platform.cli.reference > docs/cli.md`.",
        "",
    ]
    _describe(lines, root, click.Context(root, info_name="aios"))
    return "\n".join(lines).rstrip() + "\n"


def _describe(lines: list[str], command: click.Command, context: click.Context) -> None:
    parts = getattr(command, "commands", {})
    if context.parent is not None:
        lines += [f"## `{context.command_path}`", ""]
    lines += [(command.help or "").strip(), ""]
    rows = [
        (_written(parameter), " ".join((getattr(parameter, "help", None) or "").split()))
        for parameter in command.params
    ]
    if rows and not parts:
        lines += ["| | |", "|---|---|"]
        lines += [f"| `{name}` | {told.replace('|', ', ')} |" for name, told in rows]
        lines.append("")
    for name, part in parts.items():
        _describe(lines, part, click.Context(part, info_name=name, parent=context))


def _written(parameter: click.Parameter) -> str:
    if parameter.param_type_name == "argument":
        name = (parameter.name or "").upper()
        return name if parameter.required else f"[{name}]"
    return ", ".join(parameter.opts)


if __name__ == "__main__":
    print(reference(), end="")
