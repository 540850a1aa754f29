"""Times told as in crontab."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from cytoloop.adapters.cron import next_time
from cytoloop.domain.errors import ConfigError

BERLIN = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 3 * * *", (2026, 5, 4, 2, 59), (2026, 5, 4, 3, 0)),
        ("0 3 * * *", (2026, 5, 4, 3, 1), (2026, 5, 5, 3, 0)),
        ("*/15 * * * *", (2026, 5, 4, 3, 1), (2026, 5, 4, 3, 15)),
        ("30 22 * * mon", (2026, 5, 5, 0, 0), (2026, 5, 11, 22, 30)),
    ],
)
def test_the_next_time_is_told_in_the_zone_asked_in(
    expression: str, after: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    found = next_time(expression, datetime(*after, tzinfo=BERLIN))  # type: ignore[misc, arg-type]
    assert found == datetime(*expected, tzinfo=BERLIN)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize("wrong", ["", "0 3 * *", "61 3 * * *", "often"])
def test_what_is_no_such_time_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(ConfigError, match="expected five fields, as in '0 3 "):
        next_time(wrong, datetime(2026, 5, 4, tzinfo=BERLIN))
