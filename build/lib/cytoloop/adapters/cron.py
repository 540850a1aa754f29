"""Times told as in crontab."""

from __future__ import annotations

from datetime import datetime

from apscheduler.triggers.cron import CronTrigger

from cytoloop.domain.errors import ConfigError


def next_time(expression: str, after: datetime) -> datetime | None:
    """The first moment an expression names after another one; None if there will be none.

    Parameters
    ----------
    expression : str
        Five fields: minute, hour, day of the month, month, day of the week. ``0 3 * * *`` is every night at
        three, in the time zone of ``after``.

    Raises
    ------
    ConfigError
        If it is no such expression.
    """
    try:
        trigger = CronTrigger.from_crontab(expression, timezone=after.tzinfo)
    except ValueError as error:
        raise ConfigError(
            f"cron expression {expression!r}: {error}; expected five fields, as in '0 3 * * *'"
        ) from None
    # APScheduler fires at the very moment asked about, too.
    found: datetime | None = trigger.get_next_fire_time(after, after)
    return found
