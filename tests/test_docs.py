"""What the README says is there, and what is there is in the README."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest
from places import ROOT

from cytoloop.adapters.assays import shipped_folder
from cytoloop.cli import cli

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(group: click.Group, prefix: str = "") -> list[tuple[str, click.Command]]:
    """Every command with its full name."""
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, f"{prefix}{name} ")
        else:
            found.append((prefix + name, command))
    return found


@pytest.mark.parametrize("name", [name for name, _ in commands(cli)])
def test_the_readme_names_every_command(name: str) -> None:
    assert f"cytoloop {name}" in README


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run `make reference`"
    assert [name for name, _ in commands(cli) if f"## cytoloop {name}\n" not in written] == []


def test_the_readme_names_every_variable_and_no_other() -> None:
    source = (ROOT / "cytoloop" / "config.py").read_text(encoding="utf-8")
    read = {f"CYTOLOOP_{name.upper()}" for name in re.findall(r'\bget\("([a-z_]+)"\)', source)}
    read.add("CYTOLOOP_HOME")
    assert len(read) >= 10
    assert set(re.findall(r"CYTOLOOP_[A-Z_]+[A-Z]", README)) == read


PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docker/*.md"), *ROOT.glob("locks/*.md")]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_of_a_page_is_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [t for t in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) if not t.startswith("http")]
    assert [t for t in targets if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one(page: Path) -> None:
    """Each ``cytoloop …`` line of a block parses, without being run."""
    if page.name == "cli.md":
        pytest.skip("made from the commands themselves")
    blocks = re.findall(r"```(?:bash|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for line in "\n".join(blocks).splitlines():
        found = re.search(r"(?<![\w/.-])cytoloop (?P<rest>[a-z][^#|&>;]*)", line.partition("#")[0])
        if found is None or "…" in found["rest"] or "[" in found["rest"]:
            continue
        words = shlex.split(found["rest"])
        command: click.Command = cli
        context = click.Context(cli, info_name="cytoloop")
        while isinstance(command, click.Group):
            assert words, line
            inner = command.get_command(context, words[0])
            assert inner is not None, f"{page.name}: {line.strip()}: no command {words[0]!r}"
            command, words = inner, words[1:]
        parser = command.make_parser(click.Context(command, info_name=command.name, parent=context))
        try:
            parser.parse_args(args=list(words))
        except click.UsageError as error:
            pytest.fail(f"{page.name}: {line.strip()}: {error.format_message()}")


def test_the_readme_has_no_gap_left_to_fill() -> None:
    assert "@@" not in README
    assert "TODO" not in README


@pytest.mark.parametrize("name", sorted(path.stem for path in shipped_folder().glob("*.yaml")))
def test_the_readme_names_every_assay(name: str) -> None:
    assert f"`{name}`" in README


def test_the_project_speaks_of_no_machine_but_the_readers() -> None:
    """No path of somebody's machine in what is shipped."""
    shipped = [
        p
        for folder in ("cytoloop", "ml_backend", "labelstudio_config", "trainer")
        for p in (ROOT / folder).rglob("*.py")
    ]
    bad = [
        str(p)
        for p in [*shipped, ROOT / "README.md"]
        if re.search(r"/(home|root|Users)/\w", p.read_text(encoding="utf-8"))
    ]
    assert bad == []
