"""JSON over HTTP to a model server: retries with backoff and jitter, errors one can act upon."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from ccrl_cli.errors import PreconditionError

#: Seconds before the first retry; doubled for each further one.
FIRST_DELAY = 1.0
#: Longest pause of ours between two attempts.
LONGEST_DELAY = 60.0
#: Longest pause that a server's Retry-After is followed for.
LONGEST_RETRY_AFTER = 600.0
#: Answers after which the same request may succeed a little later.
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class ServerError(Exception):
    """The server could not be brought to answer: unreachable, failing, or not what it should be.

    Attributes:
        attempts: how often it was asked.
    """

    def __init__(self, message: str, attempts: int) -> None:
        super().__init__(message)
        self.attempts = attempts


class RefusedError(Exception):
    """The server understood and refuses this request (4xx), for a reason of its own.

    Attributes:
        status: HTTP status.
        reason: what the server says.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"HTTP {status}: {reason}")
        self.status = status
        self.reason = reason


class StoppedError(Exception):
    """Nobody waits for the answer any more."""


def retry_delay(
    attempt: int, retry_after: float | None, draw: Callable[[], float], first: float = FIRST_DELAY
) -> float:
    """Return the seconds to wait after a failed attempt.

    Exponential backoff with half of it random, so that clients which failed together do not come
    back together. A server that names a time is followed, with a little jitter on top.

    Args:
        attempt: number of the failed attempt, from 0.
        retry_after: what the server asked for, in seconds.
        draw: a random number in [0, 1).
        first: longest delay after attempt 0.
    """
    own = min(LONGEST_DELAY, first * 2.0 ** min(attempt, 30))
    if retry_after is not None:
        return min(LONGEST_RETRY_AFTER, retry_after) + 0.1 * own * draw()
    return own * (0.5 + 0.5 * draw())


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds of a Retry-After header (a number or a date); None if there is none."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        timeout_seconds: longest wait for one answer.
        retries: further attempts after a failed one.
        first_delay: longest pause before the first retry, in seconds.
    """

    timeout_seconds: float = 600.0
    retries: int = 8
    first_delay: float = FIRST_DELAY


class JsonClient:
    """Asks one server, from several threads at once.

    Args:
        url: base URL; paths are appended.
        api_key: sent as a bearer token; never shown.
        patience: timeouts and retries.
        connections: requests that may be on their way at once.
    """

    def __init__(
        self, url: str, *, api_key: str | None, patience: Patience, connections: int
    ) -> None:
        self.url = url
        self._patience = patience
        self._random = random.Random()
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(patience.timeout_seconds, connect=10.0),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=urlsplit(url).hostname not in _LOOPBACK,  # no proxy on the way to oneself
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str) -> Any:
        """Return the JSON answer to a GET, without retries.

        Raises:
            ServerError: no answer, or one that is no JSON.
            RefusedError: 4xx.
        """
        return self._attempt("GET", path, None)

    def post(self, path: str, content: Any, stopped: threading.Event) -> Any:
        """Return the JSON answer to a POST, asked again while that may help.

        Args:
            path: appended to the base URL.
            content: the body.
            stopped: once set, nothing is tried again.

        Raises:
            ServerError: every attempt failed.
            RefusedError: the server refuses the request itself.
            StoppedError: `stopped` was set.
        """
        attempt = 0
        while True:
            if stopped.is_set():
                raise StoppedError
            try:
                return self._attempt("POST", path, content)
            except _TemporaryError as error:
                if attempt >= self._patience.retries:
                    raise ServerError(str(error), attempt + 1) from error
                delay = retry_delay(
                    attempt, error.retry_after, self._random.random, self._patience.first_delay
                )
                attempt += 1
                if stopped.wait(delay):
                    raise StoppedError from error

    def _attempt(self, method: str, path: str, content: Any) -> Any:
        started = time.monotonic()
        try:
            answer = self._client.request(method, self.url + path, json=content)
        except httpx.TimeoutException as error:
            waited = time.monotonic() - started
            raise _TemporaryError(f"no answer within {waited:.0f} s") from error
        except httpx.ConnectError as error:
            raise _TemporaryError(f"cannot connect ({error})") from error
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise _TemporaryError(f"the connection broke ({error or type(error).__name__})") from (
                error
            )
        if answer.status_code in RETRIED:
            raise _TemporaryError(
                f"HTTP {answer.status_code}: {_reason(answer)}",
                parse_retry_after(answer.headers.get("retry-after")),
            )
        if answer.status_code >= 400:
            raise RefusedError(answer.status_code, _reason(answer))
        try:
            return answer.json()
        except ValueError as error:
            start = answer.text[:80].replace("\n", " ")
            raise _TemporaryError(f"the answer is no JSON: {start!r}") from error


class _TemporaryError(ServerError):
    """An attempt failed in a way that another one may not."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, 1)
        self.retry_after = retry_after


def _reason(answer: httpx.Response) -> str:
    """Return what a server says about an error, in at most 300 characters of one line."""
    try:
        content = answer.json()
    except ValueError:
        return " ".join(answer.text.split())[:300] or answer.reason_phrase
    if isinstance(content, dict):
        inner = content.get("error", content.get("message", content.get("detail", content)))
        content = inner.get("message", inner) if isinstance(inner, dict) else inner
    return " ".join(str(content).split())[:300]


def read_key(variable: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the API key from the environment variable that the profile names.

    Raises:
        PreconditionError: the variable is not set.
    """
    if not variable:
        return None
    value = environment.get(variable, "").strip()
    if not value:
        raise PreconditionError(
            f"the profile takes the server's key from the environment variable {variable}, "
            "which is not set",
            hint=f"set {variable} in the environment, or --set generation.server_key_variable=",
        )
    return value
