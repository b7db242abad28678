"""A small web server on this machine that serves a folder and misbehaves on request; sockets and bytes are real."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Served:
    """One file and how the server behaves for it. A fault that is a number happens so many times, then no more."""

    body: bytes
    drop_after: int | None = None
    """Cut the connection (reset) after so many bytes of every answer."""
    drops: int = 10**9
    truncate_to: int | None = None
    """Announce and send only so many bytes."""
    corrupt: int = 0
    """Answers with a flipped byte."""
    redirect: str | None = None
    busy: int = 0
    """Answers with ``busy_status`` and Retry-After."""
    busy_status: int = 503
    retry_after: str | None = "0"
    page: bool = False
    """Send a login page with status 200."""
    page_type: str = "text/html; charset=utf-8"
    ranges: bool = True
    etag: str | None = "strong"
    """``strong`` and ``weak`` are made from the body; None sends none."""
    modified: bool = False
    announce: int | None = None
    """Content-Length that is not true."""
    bytes_per_second: float | None = None
    status: int = 200
    head_status: int = 200
    """Of answers to HEAD alone."""
    query: str = ""
    """The request must have this in its query, else 403."""
    change_after_first: bytes | None = None
    """Becomes the body when the first answer was given."""
    shifted_ranges: bool = False
    """Answers to ranges begin one byte too early."""


PAGE = b"<!DOCTYPE html>\n<html><body><form>Please log in</form></body></html>\n" * 40


@dataclass
class Server:
    """What is served, and what was asked."""

    url: str = ""
    files: dict[str, Served] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of every request."""
    sent: int = 0
    """Bytes of bodies that were sent."""
    open_now: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def gets(self) -> Counter[str]:
        """How often each file was asked for with GET."""
        return Counter(path for method, path, _ in self.asked if method == "GET")

    def ranges(self, path: str) -> list[str | None]:
        """Range headers of the GETs of a file, in order."""
        return [asked for method, name, asked in self.asked if method == "GET" and name == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: 40 ms each otherwise
    server: _Http

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name it overrides)
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        state = self.server.state
        with state.lock:
            state.open_now += 1
            state.most_at_once = max(state.most_at_once, state.open_now)
        try:
            self._answer(body=True)
        finally:
            with state.lock:
                state.open_now -= 1

    def _plain(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        path, state = unquote(parts.path).lstrip("/"), self.server.state
        folder = parse_qs(parts.query).get("path")
        if folder is not None:
            path = f"{path}?{folder[0]}"
        wanted = self.headers.get("Range")
        with state.lock:
            state.asked.append((self.command, path, wanted))
            served = state.files.get(path)
            if served is None:
                return self._plain(404, {})
            if body and served.busy > 0:
                served.busy -= 1
                wait = {} if served.retry_after is None else {"Retry-After": served.retry_after}
                return self._plain(served.busy_status, wait)
        status = served.status if body else max(served.status, served.head_status)
        if status != 200:
            return self._plain(status, {})
        if served.redirect is not None:
            return self._plain(302, {"Location": served.redirect})
        if served.query not in parts.query:
            return self._plain(403, {})
        if served.page:
            return self._plain(200, {"Content-Type": served.page_type}, PAGE)
        self._send(served, wanted, body=body)
        return None

    def _send(self, served: Served, wanted: str | None, *, body: bool) -> None:
        whole = served.body if served.truncate_to is None else served.body[: served.truncate_to]
        tag = f'"{hashlib.sha1(whole).hexdigest()}"'
        etag = {"strong": tag, "weak": f"W/{tag}", None: None}[served.etag]
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "") if served.ranges else None
        if match and self.headers.get("If-Range") not in {None, etag, "Sun, 01 Jan 2023 00:00:00 GMT"}:
            match = None
        start = int(match[1]) if match else 0
        stop = min(int(match[2]) + 1, len(whole)) if match and match[2] else len(whole)
        if match and start >= len(whole):
            return self._plain(416, {"Content-Range": f"bytes */{len(whole)}"})
        if match and served.shifted_ranges and start:
            start -= 1
        part = whole[start:stop]
        self.send_response(206 if match else 200)
        self.send_header("Content-Type", "application/octet-stream")
        if etag:
            self.send_header("ETag", etag)
        if served.modified:
            self.send_header("Last-Modified", "Sun, 01 Jan 2023 00:00:00 GMT")
        if match:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(whole)}")
        announced = len(part) if served.announce is None else served.announce
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        if not body:
            return None
        state = self.server.state
        with state.lock:
            if served.corrupt > 0 and part:
                served.corrupt -= 1
                part = part[:-1] + bytes([part[-1] ^ 1])
            if served.change_after_first is not None:
                served.body, served.change_after_first = served.change_after_first, None
            cut = served.drop_after if served.drops > 0 else None
            if cut is not None and cut < len(part):
                served.drops -= 1
                part = part[:cut]
        self._write(part, served.bytes_per_second)
        with state.lock:
            state.sent += len(part)
        if len(part) != announced:
            # A reset, not a clean end; the bytes go out before it throws them away.
            time.sleep(0.02)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        return None

    def _write(self, part: bytes, rate: float | None) -> None:
        if rate is None:
            self.wfile.write(part)
            self.wfile.flush()
            return
        step = max(1, int(rate / 20))
        for begin in range(0, len(part), step):
            self.wfile.write(part[begin : begin + step])
            self.wfile.flush()
            time.sleep(0.05)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    state: Server

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hung up


@contextmanager
def serving(files: dict[str, Served] | None = None) -> Iterator[Server]:
    """Serve on a free port of this machine until the block ends."""
    http = _Http(("127.0.0.1", 0), _Handler)
    http.state = Server(url=f"http://127.0.0.1:{http.server_address[1]}", files=files or {})
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield http.state
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
