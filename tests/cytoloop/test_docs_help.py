"""Every command says what it does and shows how it is called."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from cytoloop.cli import cli


def commands(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())


def examples(command: click.Command) -> list[list[str]]:
    lines = [line.strip() for line in (command.help or "").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("cytoloop ")]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_has_a_sentence_an_example_and_every_option(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*path, "--help"])
    assert shown.exit_code == 0
    command = ALL[path]
    first = (command.help or "").partition("\n\n")[0]
    assert first.rstrip().endswith("."), first
    assert any(
        example[1 : len(path) + 1] == list(path) or isinstance(command, click.Group)
        for example in examples(command)
    )
    assert f"cytoloop {path[0]}" in shown.output
    for parameter in command.params:
        for name in parameter.opts if isinstance(parameter, click.Option) else ():
            assert name in shown.output


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_examples_parse(path: tuple[str, ...]) -> None:
    for example in examples(ALL[path]):
        command: click.Command = cli
        rest = example[1:]
        context = click.Context(cli, info_name="cytoloop")
        while isinstance(command, click.Group):
            name, found, rest = command.resolve_command(context, rest)
            assert found is not None, name
            command = found
            context = click.Context(command, parent=context, info_name=name)
        problem = ""
        try:
            command.make_context(example[1], list(rest), parent=context)
        except click.BadParameter as error:
            problem = str(error)
        assert problem == "" or "does not exist" in problem  # the plates of the examples are not here


@pytest.mark.parametrize("path", [p for p, c in ALL.items() if not isinstance(c, click.Group)], ids=" ".join)
def test_every_command_takes_a_home_and_json(path: tuple[str, ...]) -> None:
    names = {name for parameter in ALL[path].params for name in parameter.opts}
    assert {"--home", "--json"} <= names


def test_help_costs_no_heavy_import() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from cytoloop.cli import run; run(['train', '--help'])\n"
        "heavy = {'torch', 'flask', 'label_studio_sdk', 'matplotlib', 'scipy', 'tifffile'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
