"""Windows of event time: the partitions in which data arrives."""

import calendar
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, field_validator, model_validator

from aios_platform.contracts.record import Record


class Every(StrEnum):
    """How long a window is."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


KEY_FORMATS = {
    Every.HOUR: "%Y-%m-%dT%H",
    Every.DAY: "%Y-%m-%d",
    Every.WEEK: "%Y-%m-%d",
    Every.MONTH: "%Y-%m",
}


def _local_midnight(value: object) -> object:
    """Accept a date, or the first day of a month written as YYYY-MM."""
    if isinstance(value, str) and len(value) == len("2013-01"):
        return f"{value}-01"
    return value


LocalDate = Annotated[date, BeforeValidator(_local_midnight)]


class Window(Record):
    """One half-open interval of event time, `[start, end)`, both in UTC."""

    key: str
    start: datetime
    end: datetime

    def __str__(self) -> str:
        return self.key


class WindowSchedule(Record):
    """The windows of a model: how long they are, where they begin and end, in which time zone."""

    every: Every = Field(default=Every.MONTH, description="Length of a window.")
    start: LocalDate = Field(description="First day of the first window (YYYY-MM-DD or YYYY-MM).")
    end: LocalDate | None = Field(
        default=None, description="Day after the last window; unset, windows go on for ever."
    )
    timezone: str = Field(default="UTC", description="IANA time zone in which windows begin.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(
                f"'{value}' is not an IANA time zone such as 'UTC' or 'America/New_York'"
            ) from None
        return value

    @model_validator(mode="after")
    def _in_order(self) -> "WindowSchedule":
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end ({self.end}) must come after start ({self.start})")
        if self.every is Every.MONTH and self.start.day != 1:
            raise ValueError(f"start ({self.start}) of monthly windows must be a first of a month")
        if self.every is Every.HOUR and self.timezone != "UTC":
            # Where clocks are put back, two hours of a year would have the same key.
            raise ValueError(f"hourly windows must be in UTC, not in {self.timezone}")
        return self

    @cached_property
    def key_format(self) -> str:
        """The strftime format of window keys."""
        return KEY_FORMATS[self.every]

    def windows(self, until: datetime) -> list[Window]:
        """All windows that are over at `until` (an aware datetime), oldest first."""
        return list(self._closed(until))

    def window(self, key: str) -> Window:
        """The window with this key.

        Raises:
            ValueError: The key has the wrong form, or lies outside the schedule.
        """
        try:
            start = datetime.strptime(key, self.key_format)
        except ValueError:
            raise ValueError(
                f"window '{key}' does not have the form {self.key_format} of this schedule"
            ) from None
        first = datetime.combine(self.start, datetime.min.time())
        last = datetime.combine(self.end, datetime.min.time()) if self.end else None
        if start < first or (last is not None and start >= last):
            raise ValueError(f"window '{key}' lies outside {self.start} to {self.end or 'ever'}")
        return self._window_at(start)

    def shift(self, key: str, by: int) -> str | None:
        """The key of the window `by` places later (or earlier); None outside the schedule."""
        start = datetime.strptime(key, self.key_format)
        step = 1 if by > 0 else -1
        for _ in range(abs(by)):
            start = self._next(start) if step > 0 else self._previous(start)
        if start.date() < self.start or (self.end is not None and start.date() >= self.end):
            return None
        return start.strftime(self.key_format)

    def _closed(self, until: datetime) -> Iterator[Window]:
        local = datetime.combine(self.start, datetime.min.time())
        last = datetime.combine(self.end, datetime.min.time()) if self.end else None
        while last is None or local < last:
            window = self._window_at(local)
            if window.end > until:
                return
            yield window
            local = self._next(local)

    def _window_at(self, local: datetime) -> Window:
        zone = ZoneInfo(self.timezone)
        return Window(
            key=local.strftime(self.key_format),
            start=local.replace(tzinfo=zone).astimezone(UTC),
            end=self._next(local).replace(tzinfo=zone).astimezone(UTC),
        )

    def _next(self, local: datetime) -> datetime:
        match self.every:
            case Every.HOUR:
                return local + timedelta(hours=1)
            case Every.DAY:
                return local + timedelta(days=1)
            case Every.WEEK:
                return local + timedelta(weeks=1)
            case Every.MONTH:
                days = calendar.monthrange(local.year, local.month)[1]
                return local + timedelta(days=days)

    def _previous(self, local: datetime) -> datetime:
        match self.every:
            case Every.HOUR:
                return local - timedelta(hours=1)
            case Every.DAY:
                return local - timedelta(days=1)
            case Every.WEEK:
                return local - timedelta(weeks=1)
            case Every.MONTH:
                return (local - timedelta(days=1)).replace(day=1)
