"""JSON of others, read with bounded depth and memory, and how their values are told in messages."""

from __future__ import annotations

import json
import re
import reprlib
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np

from cytoloop.domain.errors import CytoloopError, InputError

DEEPEST = 64
"""Lists and objects within each other. Ours are 8 deep; whoever walks a document of a thousand runs out of stack."""
MOST_CONTAINERS = 1_000_000
"""Lists and objects in a document: an empty one is two characters, and 60 bytes in memory."""
MOST_TEXTS = 4_000_000
"""Texts in a document, keys counted."""
LARGEST_NUMBER = 2**63 - 1
"""Of ids and counts: what a database holds."""

_STRUCTURE = bytes(sorted(set(range(256)) - set(b"[]{}")))
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
# A text that is never closed ends with the document: it must not be looked at again from its next quote.
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 3, 200, 200


def parse_json(content: bytes, where: str, error: type[CytoloopError] = InputError) -> Any:
    """The value of a JSON document.

    Raises
    ------
    error
        If it is not JSON, or more than :func:`check_json` lets pass; the message begins with ``where``.

    Examples
    --------
    >>> parse_json(b'{"id": [1, 2]}', "here")
    {'id': [1, 2]}
    """
    check_json(content, where, error)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise error(f"{where}: not JSON: {problem}") from None


def check_json(content: bytes, where: str, error: type[CytoloopError] = InputError) -> None:
    """Refuse a document that would take all memory or stack, before anybody parses it.

    Raises
    ------
    error
        If more than 64 lists and objects lie within each other, or there are more than a million of them, or more
        than four million texts.

    Examples
    --------
    >>> check_json(b"[" * 65 + b"]" * 65, "here")
    Traceback (most recent call last):
    cytoloop.domain.errors.InputError: here: JSON nested more than 64 deep
    """
    containers = content.count(b"[") + content.count(b"{")
    if containers > MOST_CONTAINERS:
        raise error(f"{where}: JSON of {containers} lists and objects, expected at most {MOST_CONTAINERS}")
    texts = content.count(b'"') // 2
    if texts > MOST_TEXTS:
        raise error(f"{where}: JSON of {texts} texts, expected at most {MOST_TEXTS}")
    # Brackets in texts count here too; only where they would be too many is it worth to leave them out.
    if _depth(content) > DEEPEST and _depth(_without_texts(content)) > DEEPEST:
        raise error(f"{where}: JSON nested more than {DEEPEST} deep")


def told(value: object) -> str:
    """A value for a message, as ``repr``, cut short where it is long or deep.

    Examples
    --------
    >>> told("ab"), told(list(range(100)))
    ("'ab'", '[0, 1, 2, 3, 4, 5, ...]')
    """
    return _REPR.repr(value)


def is_whole(value: object, least: int = 1) -> TypeGuard[int]:
    """Whether a value is a whole number from ``least`` to the largest that a database holds."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST_NUMBER


def is_storable(text: str) -> bool:
    """Whether a text can be written: JSON and YAML may escape halves of characters, which no encoding has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(content: bytes) -> int:
    steps = _STEPS[np.frombuffer(content.translate(None, _STRUCTURE), np.uint8)]
    return int(np.cumsum(steps, dtype=np.int64).max(initial=0))


def _without_texts(content: bytes) -> bytes:
    text = content.decode(json.detect_encoding(content), "replace")
    ends = [0, *(place for found in _TEXT.finditer(text) for place in found.span()), len(text)]
    return "".join(text[start:end] for start, end in list(pairwise(ends))[::2]).encode()
