"""JSON over HTTP to a model server: retries with backoff and jitter, errors one can act upon."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from ccrl_cli.errors import PreconditionError

#: Seconds before the first retry; doubled for each further one.
FIRST_DELAY = 1.0
#: Longest pause of ours between two attempts.
LONGEST_DELAY = 60.0
#: Longest pause that a server's Retry-After is followed for.
LONGEST_RETRY_AFTER = 300.0
#: Answers below 500 after which the same request may succeed a little later.
RETRIED = frozenset({408, 425, 429})
#: Answers from 500 on that another attempt cannot change.
LASTING = frozenset({501, 505, 511})
#: Longest body that is read, in bytes after decompression.
LONGEST_BODY = 32 * 2**20
#: Pauses from this many seconds on are told of.
TOLD_PAUSE = 10.0
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


class TemporaryError(ServerError):
    """An attempt failed in a way that another one may not.

    Attributes:
        retry_after: seconds that the server asks to wait, if it does.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, 1)
        self.retry_after = retry_after


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
    except (ValueError, OverflowError, TypeError, IndexError):
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


Answer = TypeVar("Answer")


class JsonClient:
    """Asks one server, from several threads at once.

    Args:
        url: base URL; paths are appended.
        api_key: sent as a bearer token; masked in every message.
        patience: timeouts and retries.
        connections: requests that may be on their way at once.
        tell: told of long pauses, from any thread.

    Raises:
        PreconditionError: the address, a proxy or a certificate of the environment is unusable.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        patience: Patience,
        connections: int,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.url = url
        self._patience = patience
        self._random = random.Random()
        self._key = api_key
        self._tell = tell
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        host = _checked_host(url)
        try:
            self._client = httpx.Client(
                headers=headers,
                timeout=httpx.Timeout(patience.timeout_seconds, connect=10.0),
                limits=httpx.Limits(
                    max_connections=connections, max_keepalive_connections=connections
                ),
                trust_env=host not in _LOOPBACK,  # no proxy on the way to oneself
            )
        except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
            raise _unusable_environment(error) from error

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

    def post(
        self,
        path: str,
        content: Any,
        stopped: threading.Event,
        read: Callable[[Any], Answer],
    ) -> Answer:
        """Return what the JSON answer to a POST says, asked again while that may help.

        Args:
            path: appended to the base URL.
            content: the body.
            stopped: once set, nothing is tried again.
            read: reads the answer; may raise TemporaryError to have it asked for again.

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
                return read(self._attempt("POST", path, content))
            except RefusedError as error:
                raise RefusedError(error.status, self._clean(error.reason)) from error
            except TemporaryError as error:
                if attempt >= self._patience.retries:
                    raise ServerError(self._clean(str(error)), attempt + 1) from error
                delay = retry_delay(
                    attempt, error.retry_after, self._random.random, self._patience.first_delay
                )
                attempt += 1
                if delay >= TOLD_PAUSE and self._tell is not None:
                    self._tell(
                        f"waiting {delay:.0f} s for the server at {self.url} "
                        f"({self._clean(str(error))})"
                    )
                if stopped.wait(delay):
                    raise StoppedError from error

    def _attempt(self, method: str, path: str, content: Any) -> Any:
        started = time.monotonic()
        try:
            status, headers, body = self._exchange(method, path, content, started)
        except httpx.TimeoutException as error:
            waited = time.monotonic() - started
            raise TemporaryError(f"no answer within {waited:.0f} s") from error
        except httpx.ConnectError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise ServerError(f"its certificate cannot be verified ({error})", 1) from error
            raise TemporaryError(f"cannot connect ({error})") from error
        except httpx.InvalidURL as error:
            raise PreconditionError(
                f"{self.url} is no address ({error})", hint="correct generation.server_url"
            ) from error
        except (httpx.RequestError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            what = self._clean(str(error) or type(error).__name__)
            raise TemporaryError(f"the connection broke ({what})") from error
        if status in RETRIED or (status >= 500 and status not in LASTING):
            raise TemporaryError(
                f"HTTP {status}: {self._clean(_reason(body, status))}",
                parse_retry_after(headers.get("retry-after")),
            )
        if status >= 400:
            raise RefusedError(status, self._clean(_reason(body, status)))
        if status >= 300:
            raise RefusedError(status, self._clean(f"redirects to {headers.get('location', '')}"))
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            start = " ".join(body[:80].decode("utf-8", "replace").split())
            raise TemporaryError(f"the answer is no JSON: {self._clean(start)!r}") from error

    def _exchange(
        self, method: str, path: str, content: Any, started: float
    ) -> tuple[int, httpx.Headers, bytes]:
        """Return status, headers and body, which may neither drip for ever nor grow without end.

        Raises:
            TemporaryError: the body is too long, or takes too long.
        """
        body = bytearray()
        with self._client.stream(method, self.url + path, json=content) as answer:
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > LONGEST_BODY:
                    raise TemporaryError(f"the answer is longer than {LONGEST_BODY} bytes")
                if time.monotonic() - started > self._patience.timeout_seconds:
                    raise TemporaryError(
                        f"no whole answer within {self._patience.timeout_seconds:.0f} s"
                    )
            return answer.status_code, answer.headers, bytes(body)

    def _clean(self, text: str) -> str:
        """Return a text without the key, should a server repeat it."""
        return text.replace(self._key, "***") if self._key else text


def _checked_host(url: str) -> str | None:
    """Return the host of a URL; raise PreconditionError if it has none or no valid port."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises on a port that is no number
        httpx.URL(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.hostname
        problem = "no host" if parts.scheme in ("http", "https") else "no http:// or https://"
    except (ValueError, httpx.InvalidURL) as error:
        problem = str(error)
    raise PreconditionError(
        f"the server's address {url} cannot be used ({problem})",
        hint="write --set generation.server_url=http://HOST:PORT (or set OLLAMA_HOST)",
    )


def _unusable_environment(error: Exception) -> PreconditionError:
    """Return the error of a proxy or certificate setting that cannot be used."""
    names = [n for n in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(n)]
    if isinstance(error, OSError) and names:
        return PreconditionError(
            f"the certificates that {' and '.join(names)} names cannot be read ({error})",
            hint=f"correct or unset {names[0]}",
        )
    proxies = [
        name
        for stem in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
        for name in (stem, stem.lower())
        if os.environ.get(name)
    ]
    return PreconditionError(
        f"the connection cannot be set up ({error})",
        hint=f"correct or unset {', '.join(proxies)} (SOCKS needs: pip install socksio)"
        if proxies
        else "correct the proxy and certificate settings of the environment",
    )


def _reason(body: bytes, status: int) -> str:
    """Return what a server says about an error, in at most 300 characters of one line."""
    text = body[:20_000].decode("utf-8", "replace")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        said = " ".join(text.split())[:300]
        return said or (HTTPStatus(status).phrase if _named(status) else "no reason given")
    if isinstance(content, dict):
        inner = content.get("error", content.get("message", content.get("detail", content)))
        content = _message(inner) if isinstance(inner, dict) else inner
    return " ".join(str(content).split())[:300]


def _message(inner: dict[str, Any]) -> Any:
    """Return the message of an error, with the field that it is about."""
    message = inner.get("message", inner)
    field = inner.get("param")
    return f"{message} ({field})" if isinstance(field, str) and field else message


def _named(status: int) -> bool:
    return status in {item.value for item in HTTPStatus}


def read_key(variable: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the API key from the environment variable that the profile names.

    Raises:
        PreconditionError: the variable is not set, or holds what no key is made of.
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
    if not (value.isascii() and value.isprintable()):
        raise PreconditionError(
            f"the key in {variable} holds characters that no key has (quotes of a text processor, "
            "line breaks)",
            hint=f"copy the key into {variable} again",
        )
    return value
