"""``python docs/reference.py``: writes ``docs/cli.md`` from the commands themselves (``make reference``)."""

from __future__ import annotations

from pathlib import Path

import click

from cytoloop.cli import cli

WIDTH = 100
HEAD = """# Commands

What `cytoloop COMMAND --help` says, all in one place. This page is made from the commands by `make reference`.

Every command takes `--home` and `--json`, before or after its name. Exit codes: 0 ok, 1 the data or the world is at
fault, 2 wrong usage or configuration, 3 a bug, 130 interrupted.
"""


def leaves(group: click.Group, context: click.Context) -> list[tuple[str, str]]:
    """Full name and help of every command below a group."""
    found: list[tuple[str, str]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        with click.Context(command, info_name=name, parent=context, terminal_width=WIDTH) as inner:
            if isinstance(command, click.Group):
                found += leaves(command, inner)
            else:
                found.append((inner.command_path, command.get_help(inner)))
    return found


def page() -> str:
    """The whole page."""
    with click.Context(cli, info_name="cytoloop", terminal_width=WIDTH, **cli.context_settings) as context:
        sections = [f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in leaves(cli, context)]
    return "\n".join([HEAD, *sections])


if __name__ == "__main__":
    (Path(__file__).parent / "cli.md").write_text(page(), encoding="utf-8")
