"""Quiet hours: the hours of local time in which only critical announcements are heard."""

import time

from daemon.config_sections import QuietConfig


def local_minute(now_s: float) -> str:
    """What a clock on the wall shows at a time (seconds since 1970), as in "22:05"; daylight saving is in it."""
    return time.strftime("%H:%M", time.localtime(now_s))


def is_quiet(config: QuietConfig, minute: str) -> bool:
    """Whether a minute of local time ("22:05") lies in the quiet hours, which may go on past midnight.

    The end is no longer in them; where it equals the start they last all day.
    """
    if not config.start:
        return False
    if config.start < config.end:
        return config.start <= minute < config.end
    return minute >= config.start or minute < config.end
