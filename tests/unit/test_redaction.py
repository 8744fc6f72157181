"""No password of a URL survives, however it is written and wherever a message quotes a piece of it."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicety.scheduler.redaction import redacted, redacted_command, redacted_url


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("redis://:s3cret@127.0.0.1:6379/0", "redis://:**@127.0.0.1:6379/0"),
        ("redis://app:s3cret@127.0.0.1/0/jobs", "redis://app:**@127.0.0.1/0/jobs"),
        ("redis://:s3%40cret@[::1]:6379/0", "redis://:**@[::1]:6379/0"),
        ("redis://:s3@cret/x@127.0.0.1/0", "redis://:**@127.0.0.1/0"),
        ("redis://s3cret@127.0.0.1/0", "redis://**@127.0.0.1/0"),
        ("rediss://127.0.0.1/0?password=s3cret&db=1", "rediss://127.0.0.1/0?password=**&db=1"),
        ("sentinel://:s3cret@a:1/0;sentinel://:s4cret@b:2/0", "sentinel://:**@b:2/0"),
        ("redis://:s3cret/0", "redis://:**/0"),
        ("amqp://127.0.0.1:5672//", "amqp://127.0.0.1:5672//"),
        ("redis://[::1]/0", "redis://[::1]/0"),
        ("memory://", "memory://"),
        ("$CELERY_BROKER_URL", "$CELERY_BROKER_URL"),
        ("", ""),
    ],
)
def test_a_url_keeps_its_host_and_loses_its_password(url: str, left: str) -> None:
    assert redacted_url(url) == left


@pytest.mark.parametrize(
    "text",
    [
        "Port could not be cast to integer value as 'p'",
        "netloc :p/q@host contains invalid characters",
        "unknown command 'AUTH', with args beginning with: 'p/q'",
        "Error connecting to redis://:p/q@host:6379/0",
        "it is p%2Fq or p/q",
    ],
)
def test_no_piece_of_a_badly_written_password_is_quoted(text: str) -> None:
    for url in ("redis://:p/q@host:6379/0", "redis://:p%2Fq@host:6379/0"):
        shown = redacted(text, url)
        assert "p/q" not in shown
        assert "p%2Fq" not in shown
    assert "'p'" not in redacted(text, "redis://:p/q@host:6379/0")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=s3cret", "password=**"),
        ('{"db_password": "s3 cret", "n": 1}', '{"db_password": **, "n": 1}'),
        ("AWS_SECRET_ACCESS_KEY=s3cret x", "AWS_SECRET_ACCESS_KEY=** x"),
        ("--api-key=s3cret", "--api-key=**"),
        ("token: s3cret; next", "token: **; next"),
        ("WRONGPASS invalid username-password pair or user is disabled", None),
        ("the broker has no queue 'jobs': correct queues", None),
        ("OSError: Cannot connect to 10.0.0.1:6379", None),
    ],
)
def test_what_a_text_calls_a_password_is_hidden_and_the_rest_stays(text: str, shown: str | None) -> None:
    assert redacted(text) == (text if shown is None else shown)


@given(st.text(st.characters(codec="utf-8"), min_size=4).filter(lambda text: "*" not in text), st.booleans())
def test_no_password_survives_in_its_url(password: str, encoded: bool) -> None:
    secret = f"Zq7{password}"
    url = f"redis://:{urllib.parse.quote(secret, safe='') if encoded else secret}@host:6379/0"
    assert "Zq7" not in redacted_url(url)
    assert secret not in redacted(f"({secret})", url)


def test_of_a_command_only_the_program_is_left() -> None:
    assert redacted_command(["app", "--password", "s3cret"]) == ["app", "**"]
    assert redacted_command(["app"]) == ["app"]
    assert redacted_command([]) == []
