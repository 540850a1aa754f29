"""JSON of others: what is refused before it is parsed, and how values are told."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoloop.domain.documents import (
    DEEPEST,
    LARGEST_NUMBER,
    MOST_CONTAINERS,
    MOST_TEXTS,
    check_json,
    is_storable,
    is_whole,
    parse_json,
    told,
)
from cytoloop.domain.errors import ConfigError, InputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_what_is_written_is_read(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), "here") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), "here") == value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-le"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"[]":', "}]")])
def test_depth_is_bounded(opening: str, closing: str, encoding: str) -> None:
    levels = DEEPEST // (opening.count("[{") + 1)
    parse_json((opening * levels + "1" + closing * levels).encode(encoding), "here")
    for deep in (levels + 1, 100_000):
        with pytest.raises(ConfigError, match=f"^here: JSON nested more than {DEEPEST} deep$"):
            parse_json((opening * deep + "1" + closing * deep).encode(encoding), "here", ConfigError)


@pytest.mark.parametrize("text", ["[" * 200, '\\"[[' * 200, "\\\\" + "{" * 200, "ü[" * 200])
def test_brackets_in_texts_are_not_depth(text: str) -> None:
    body = '{"comment": "' + text + '", "more": ["[", "]"]}'
    assert parse_json(body.encode(), "here") == json.loads(body)
    with pytest.raises(InputError, match="nested"):
        check_json((body + "[" * 100).encode(), "here")


def test_a_text_that_never_ends_is_read_once() -> None:
    check_json(b'"' + b'\\"' * 1_000_000 + b"[" * 100, "here")


@pytest.mark.parametrize("unit", [b"[],", b"{},"])
def test_a_small_body_of_many_empty_lists_is_refused_before_it_takes_memory(unit: bytes) -> None:
    body = b"[" + unit * MOST_CONTAINERS + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=f"JSON of {MOST_CONTAINERS + 1} lists and objects, expected at"):
            parse_json(body, "here")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_many_texts_are_refused() -> None:
    body = b"[" + b'"a",' * (MOST_TEXTS + 1) + b"0]"
    with pytest.raises(InputError, match=f"JSON of {MOST_TEXTS + 1} texts"):
        check_json(body, "here")


@pytest.mark.parametrize("body", [b"", b"{", b"nul", b"\xff", b"1" * 5000, b'{"a" 1}'])
def test_what_is_no_json_is_told(body: bytes) -> None:
    with pytest.raises(InputError, match=r"^here: not JSON: "):
        parse_json(body, "here")


def test_values_are_told_short() -> None:
    assert [told(v) for v in (1, "a", None, [1, 2], {"a": 1})] == ["1", "'a'", "None", "[1, 2]", "{'a': 1}"]
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    for value in (deep, "x" * 10**7, ["x" * 10**6] * 10**4, "\ud800"):
        assert len(told(value)) < 2000
        assert is_storable(told(value))


def test_numbers_and_texts_that_no_database_holds() -> None:
    assert [is_whole(v) for v in (1, LARGEST_NUMBER, 0, True, 1.0, LARGEST_NUMBER + 1, "1")] == [
        *(True, True),
        *(False,) * 5,
    ]
    assert [is_storable(text) for text in ("ü", "\U0001f600", "\ud800", "a\udfff")] == [
        True,
        True,
        False,
        False,
    ]
