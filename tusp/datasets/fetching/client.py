"""Requests over HTTP that end: redirects stay on the web, answers are bounded, failures are worth a retry or final.

Only the server's word is heard here; what it means for a file on disk is :mod:`tusp.datasets.fetching.transfer`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, InvalidHeader, NewConnectionError
from urllib3.util.retry import Retry

from tusp import __version__
from tusp.platform.errors import DataError, UserError

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOST_REDIRECTS: Final = 5
T = TypeVar("T")


class FileRefused(DataError):  # noqa: N818  (they say what happened, like NothingUsable)
    """This file cannot be had from this server; others may."""


class HostRefused(UserError):  # noqa: N818
    """The server gives nothing at all: no use to ask for the other files."""


class Unreachable(HostRefused):
    """There is no connection to the server."""


class Again(Exception):  # noqa: N818
    """The attempt failed in a way that passes; ``wait`` is the server's own wish in seconds."""

    def __init__(self, reason: str, *, wait: float | None = None, host: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.host = host
        """Whether the server could not be talked to at all."""


class Stopped(Exception):  # noqa: N818
    """The user interrupted, or another file met a final refusal of the server."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait and how often to try."""

    connect_seconds: float = 20.0
    read_seconds: float = 60.0
    """Silence after which a connection counts as broken."""
    attempts: int = 6
    """Tries in a row without a further byte, before a file is given up."""
    first_wait_seconds: float = 1.0
    """Before the second try; doubled from then on, with a random part so that workers do not come in step."""
    longest_wait_seconds: float = 60.0
    longest_retry_after_seconds: float = 600.0
    """A server that asks for more than this is not waited for."""


class Attempts:
    """Counts the failures of one file and waits between them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._failures = 0

    def failed(self, error: Again, *, progress: bool = False) -> None:
        """Wait before the next try.

        Raises:
            FileRefused, HostRefused: it was the last try.
            Stopped: interrupted while waiting.
        """
        patience = self._client.patience
        self._failures = 1 if progress else self._failures + 1
        final = Unreachable if error.host else FileRefused
        if self._failures >= patience.attempts:
            raise final(f"{error}; tried {patience.attempts} times") from error
        if error.wait is not None and error.wait > patience.longest_retry_after_seconds:
            raise HostRefused(f"{error}; the server asks to come back in {error.wait:.0f} s") from error
        wait = error.wait
        if wait is None:
            longest = min(patience.longest_wait_seconds, patience.first_wait_seconds * 2.0 ** (self._failures - 1))
            wait = longest * random.uniform(0.5, 1.0)
        if self._client.stop.wait(wait):
            raise Stopped from error


class Client:
    """Sends requests of several threads; ``secrets`` never appear in what it says."""

    def __init__(
        self, *, patience: Patience, stop: threading.Event | None = None, secrets: tuple[str, ...] = ()
    ) -> None:
        self.patience = patience
        self.stop = stop or threading.Event()
        self._secrets = tuple(form for secret in secrets if secret for form in (secret, quote(secret, safe="")))
        self._sessions = threading.local()

    def shown(self, url: object) -> str:
        """An address as it may be shown: without query and without secrets."""
        text = str(url).partition("?")[0]
        for secret in self._secrets:
            text = text.replace(secret, "TOKEN")
        return text

    def _session(self) -> requests.Session:
        # One a thread: a session is not promised to be safe across threads.
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = requests.Session()
            session.headers["User-Agent"] = f"tusp/{__version__}"
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=0, pool_maxsize=4))
            self._sessions.session = session
        return session

    @contextmanager
    def answer(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Iterator[requests.Response]:
        """The server's answer (200, 206 or 416), its body unread; redirects are followed within the web.

        Raises:
            Again: the server is busy, broken or out of reach.
            FileRefused: there is no such file.
            HostRefused: access is refused, or a redirect leads where none may lead.
        """
        current = url
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._asked(method, current, headers or {})
            try:
                if response.status_code in _REDIRECTS:
                    current = self._redirected(current, response.headers.get("Location", ""))
                    continue
                self._check(response, url)
                try:
                    yield response
                except (requests.RequestException, HTTPError) as error:
                    raise Again(f"{self.shown(url)}: the connection broke ({type(error).__name__})") from error
                return
            finally:
                response.close()
        raise HostRefused(f"{self.shown(url)}: more than {_MOST_REDIRECTS} redirects")

    def _asked(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        timeout = (self.patience.connect_seconds, self.patience.read_seconds)
        sent = {"Accept-Encoding": "identity", **headers}
        try:
            return self._session().request(
                method, url, headers=sent, stream=True, allow_redirects=False, timeout=timeout
            )
        except requests.exceptions.SSLError as error:
            raise HostRefused(f"{urlsplit(url).netloc}: no trusted certificate, or no TLS at all") from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            if _unreachable(error):
                reason = f"{urlsplit(url).netloc}: cannot be reached (is the network there?)"
                raise Again(reason, host=True) from error
            what = "gave no answer in time" if isinstance(error, requests.Timeout) else "hung up without an answer"
            raise Again(f"{self.shown(url)}: the server {what}") from error
        except (requests.RequestException, HTTPError, ValueError) as error:
            raise HostRefused(
                f"{self.shown(url)}: not an address that can be asked ({type(error).__name__})"
            ) from error

    def _redirected(self, current: str, location: str) -> str:
        target = urljoin(current, location)
        before, after = urlsplit(current), urlsplit(target)
        if not location or after.scheme not in {"http", "https"} or not after.hostname:
            raise HostRefused(f"{self.shown(current)}: redirects to {self.shown(location) or 'nowhere'}, refused")
        if before.scheme == "https" and after.scheme == "http":
            raise HostRefused(f"{self.shown(current)}: redirects from https to http ({after.netloc}), refused")
        return target

    def _check(self, response: requests.Response, url: str) -> None:
        status, shown = response.status_code, self.shown(url)
        if status in {200, 206, 416}:
            return
        if status in _PASSING:
            raise Again(f"{shown}: the server says {status} {response.reason}", wait=_retry_after(response))
        if status in {401, 403, 407, 451}:
            raise HostRefused(f"{shown}: the server refuses access ({status} {response.reason})")
        raise FileRefused(f"{shown}: the server says {status} {response.reason}")

    def persistently(self, attempt: Callable[[], T]) -> T:
        """What ``attempt`` returns, tried again while it raises :class:`Again`.

        Raises:
            FileRefused, HostRefused: no try worked.
        """
        attempts = Attempts(self)
        while True:
            if self.stop.is_set():
                raise Stopped
            try:
                return attempt()
            except Again as error:
                attempts.failed(error)

    def text(self, url: str, *, most_bytes: int) -> str:
        """A small text (a listing).

        Raises:
            FileRefused, HostRefused: it cannot be had, is longer than ``most_bytes`` or a web page.
        """

        def attempt() -> str:
            with self.answer("GET", url) as response:
                body = b""
                for chunk in response.iter_content(2**15):
                    body += chunk
                    if len(body) > most_bytes:
                        raise FileRefused(f"{self.shown(url)}: longer than {most_bytes} bytes, no listing")
                announced = response.headers.get("Content-Length", "")
                if announced.isdecimal() and len(body) < int(announced):
                    raise Again(f"{self.shown(url)}: the connection ended early")
                if is_page(response, body):
                    raise HostRefused(f"{self.shown(url)}: the server sent a web page instead of a listing")
                return body.decode("utf-8", errors="replace")

        return self.persistently(attempt)

    def size(self, url: str) -> int | None:
        """Size that the server announces, None where it does not.

        Raises:
            Unreachable: there is no connection to the server.
        """

        def attempt() -> int | None:
            with self.answer("HEAD", url) as response:
                length = response.headers.get("Content-Length", "")
                return int(length) if length.isdecimal() and response.status_code == 200 else None

        try:
            return self.persistently(attempt)
        except Unreachable:
            raise
        except (FileRefused, HostRefused):
            return None  # some servers refuse HEAD alone; what else is wrong is said when the file is asked for


def _unreachable(error: requests.RequestException) -> bool:
    """Whether there was no connection at all, rather than one that broke."""
    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.ProxyError):
        return True
    inner = error.args[0] if error.args else None
    return isinstance(getattr(inner, "reason", None), NewConnectionError)


def is_page(response: requests.Response, beginning: bytes) -> bool:
    """Whether a body is a web page: what login forms and error pages are, and no file of a corpus is."""
    start = beginning[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return True
    return "html" in response.headers.get("Content-Type", "").lower() and start.startswith(b"<")


def _retry_after(response: requests.Response) -> float | None:
    header = response.headers.get("Retry-After")
    if header is None:
        return None
    try:
        return max(0.0, float(Retry().parse_retry_after(header)))
    except (InvalidHeader, ValueError, OverflowError):
        return None
