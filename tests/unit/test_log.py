"""Log lines for the journal and for people, and the limit on repeats."""

import io
import logging
import os
import re
import sys

import pytest

from daemon.log import OnceLog, RateLimited, set_level, setup


@pytest.fixture(autouse=True)
def root_logger():
    """Put the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def journal(tmp_path):
    """A file that stands for the journal's stream, and the environment that says so."""
    with (tmp_path / "journal").open("w+") as file:
        stat = os.fstat(file.fileno())
        yield file, {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}


def written(file):
    file.seek(0)
    return file.read().splitlines()


def test_journal_lines_have_a_priority_and_no_time(journal):
    """Every level maps to its syslog priority, and every line of a message carries it."""
    file, environ = journal
    setup("debug", stream=file, environ=environ)
    logger = logging.getLogger("daemon.app")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logger.log(level, "started queue=%d", 3)
    logger.info("two\nlines")
    logger.info("")
    assert written(file) == [
        *(f"<{number}>daemon.app: started queue=3" for number in (7, 6, 4, 3, 2)),
        "<6>daemon.app: two",
        "<6>lines",
        "<6>daemon.app: ",
    ]


def test_traceback_keeps_its_priority(journal):
    """No line of a traceback falls back to the journal's default priority."""
    file, environ = journal
    setup("info", stream=file, environ=environ)
    try:
        int("x")
    except ValueError:
        logging.getLogger("daemon").exception("bug")
    lines = written(file)
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


def test_terminal_lines_have_a_time_and_a_level(tmp_path):
    """Outside the journal a line says when and how grave, also where JOURNAL_STREAM names another stream."""
    with (tmp_path / "log").open("w+") as file:
        setup("info", stream=file, environ={"JOURNAL_STREAM": "1:2"})
        logging.getLogger("daemon.app").warning("broker_lost error=%s", "refused")
        (line,) = written(file)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING daemon\.app: broker_lost error=refused", line)


def test_stream_without_a_descriptor_is_no_journal():
    """A stream in memory gets readable lines; setting up again replaces the handler."""
    stream = io.StringIO()
    for _ in range(2):
        setup("info", stream=stream, environ={"JOURNAL_STREAM": "1:2"})
    logging.getLogger("daemon").info("once")
    assert stream.getvalue().count("once") == 1
    assert "INFO" in stream.getvalue()


def test_default_stream_is_stderr(capsys):
    """Logs never go to stdout, which may carry audio."""
    setup("info", environ={})
    logging.getLogger("daemon").info("here")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "here" in captured.err
    assert logging.getLogger().handlers[0].stream is sys.stderr


def test_level_can_be_changed():
    """A reload changes what is written."""
    stream = io.StringIO()
    setup("warning", stream=stream, environ={})
    logger = logging.getLogger("daemon")
    logger.info("first")
    set_level("debug")
    logger.debug("second")
    assert "first" not in stream.getvalue()
    assert "second" in stream.getvalue()


def test_repeats_are_limited_and_counted(caplog):
    """One message per format and interval; the next one tells how many were left out."""
    now = 0.0
    limited = RateLimited(logging.getLogger("daemon.test"), 10.0, clock=lambda: now)
    for _ in range(3):
        limited.log(logging.WARNING, "underrun ms=%s", 20)
    limited.log(logging.WARNING, "device_lost")
    now = 10.0
    limited.log(logging.WARNING, "underrun ms=%s", 40)
    now = 20.0
    limited.log(logging.WARNING, "underrun ms=%s", 60)
    assert caplog.messages == ["underrun ms=20", "device_lost", "underrun ms=40 repeats_omitted=2", "underrun ms=60"]
    assert {record.filename for record in caplog.records} == {"test_log.py"}


def test_a_trouble_that_lasts_is_told_once(caplog):
    """Each new trouble of each thing, and the same one after ten minutes or once all was well; however many things."""
    now = 0.0
    once = OnceLog(logging.getLogger("daemon.test"), "trouble", clock=lambda: now)
    for trouble in ("down", "down", "refused", "refused", "down"):
        once.warn("broker", trouble)
    once.warn("topic", "down")
    now = 500.0
    once.warn("broker", "down")
    once.forget("broker")
    once.warn("broker", "down")
    now = 1101.0
    once.warn("broker", "down")
    told = ["broker: down", "broker: refused", "broker: down", "topic: down", "broker: down", "broker: down"]
    assert caplog.messages == [f"event=trouble {line}" for line in told]
    for number in range(1000):
        once.warn(f"topic {number}", "down")
    assert len(once._logged) == 100
