"""YAML of people: read with bounded size, depth and repetition, and never a key twice."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from cytoloop.domain.documents import told
from cytoloop.domain.errors import ConfigError
from cytoloop.files import read_bytes

LARGEST = 1 << 20
"""Bytes of a file."""
DEEPEST = 32
MOST_NODES = 20_000
"""Values in a document, those of an alias counted wherever it is used: nine lines of aliases make a thousand million."""
_LONGEST = 1000
_TOO_DEEP = f"nested more than {DEEPEST} deep"
_TOO_MANY = f"more than {MOST_NODES} values, aliases followed"


def read_yaml(path: Path) -> Any:
    """The value of a YAML (or JSON) file; aliases are taken, within :data:`MOST_NODES`.

    Raises
    ------
    ConfigError
        If it is missing, too large, too deep, no YAML, or names a key twice; the message names the path.
    """
    try:
        content = read_bytes(path, LARGEST, ConfigError)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_yaml(content, str(path))


def parse_yaml(content: bytes, where: str) -> Any:
    """The value of a YAML document; errors as of :func:`read_yaml`, beginning with ``where``.

    Examples
    --------
    >>> parse_yaml(b"a: &one [1]\\nb: *one", "here")
    {'a': [1], 'b': [1]}
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8: {error}") from error
    try:
        return yaml.load(text, _Loader)  # noqa: S506 a safe loader
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {_short(str(error))}") from error
    except RecursionError:
        raise ConfigError(f"{where}: not YAML: {_TOO_DEEP}") from None
    except (
        Exception
    ) as error:  # of a value like 2022-13-45 or !!int x the library raises whatever it stumbles over
        raise ConfigError(f"{where}: not YAML: a value cannot be read ({error!r:.200})") from error


def _short(text: str) -> str:
    """Without the middle where it is long: an alias may have as many letters as the file."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._composed = 0

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        _size(node, {}, 1)
        return self.construct_document(node)

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._composed += 1
        self._depth += 1
        if self._depth > DEEPEST or self._composed > MOST_NODES:
            problem = _TOO_DEEP if self._depth > DEEPEST else _TOO_MANY
            raise yaml.composer.ComposerError(
                None, None, problem, None if parent is None else parent.start_mark
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            self._refuse_twice(node)
        return super().construct_mapping(node, deep=deep)

    def _refuse_twice(self, node: yaml.MappingNode) -> None:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {told(key.value)} is there twice, expected each once", key.start_mark
                )
            seen.add((key.tag, key.value))


def _size(node: Any, known: dict[int, int | None], depth: int) -> int:
    """Values below a node, aliases followed; what is known already is not counted anew."""
    if depth > DEEPEST:
        raise _refused(node, _TOO_DEEP)
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise _refused(node, "an alias leads to what it is part of")
        return size
    known[id(node)] = None
    total = 1
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
    for child in children:
        total += _size(child, known, depth + 1)
        if total > MOST_NODES:
            raise _refused(node, _TOO_MANY)
    known[id(node)] = total
    return total


def _refused(node: Any, problem: str) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, problem, node.start_mark)
