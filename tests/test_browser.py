"""The page in a real browser: no error, no request, nothing that runs. Needs Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from judged_home import judged_home
from report_results import add_submission, new_store, plausible_results
from test_html import HOSTILE, some_results

from tusp.dashboards.extras import read_extras
from tusp.dashboards.html import html_document
from tusp.dashboards.report import build_report

pytestmark = pytest.mark.browser


def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    return found


class Server:
    """Serves one page and writes down everything that is asked of it."""

    def __init__(self, text: str) -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                body = text.encode() if self.path == "/report.html" else b""
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Quiet."""

        self.asked = asked
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/report.html"


def look(address: str, folder: Path, *more: str) -> tuple[str, list[str], list[str]]:
    """The page's elements after loading, what the console said, and every address that the page asked for.

    The browser's own requests (its clock, its updates) are none of the page's: they have no origin.
    """
    log = folder / "net.json"
    done = subprocess.run(
        [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
            f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--log-level=0",
            # Only the page itself can be reached; whatever else is asked for fails and is said so.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--virtual-time-budget=3000",
            f"--log-net-log={log}", *more, address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    written = json.loads(log.read_text(encoding="utf-8"))
    started = written["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [event.get("params", {}) for event in written["events"] if event["type"] == started]
    asked = [job["url"] for job in jobs if job.get("url") and job["initiator"] != "not an origin"]
    return done.stdout, re.findall(r'CONSOLE[^"]*"(.*)", source', done.stderr), asked


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    store = new_store(folder)
    some_results(store)
    some_results(store, simulated=True, corpus="sedf-st", name="second")
    report = build_report(store, everything=True, bootstrap=200)
    server = Server(html_document(report, read_extras(store, report)))
    yield server
    server.server.shutdown()


def test_no_error_and_no_request(served: Server, tmp_path: Path) -> None:
    served.asked.clear()
    shown, said, asked = look(served.address, tmp_path, "--dump-dom")
    assert said == []
    assert asked == []
    assert set(served.asked) <= {"/report.html", "/favicon.ico"}
    assert served.asked.count("/report.html") == 1
    assert shown.count("<svg") == 6
    assert "How this was made" in shown
    # What came from files is text in the browser's own tree too: no element was made of it.
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "<script" not in shown
    assert "<img" not in shown
    assert HOSTILE not in shown


def test_the_test_would_see_errors_requests_and_scripts(tmp_path: Path) -> None:
    page = (
        "<!DOCTYPE html><title>x</title><img src='/picture.png'><script>console.error('said')</script>"
        "<img src='http://elsewhere.example/x.png'>"
    )
    server = Server(page)
    try:
        _, said, asked = look(server.address, tmp_path, "--dump-dom")
    finally:
        server.server.shutdown()
    assert "/picture.png" in server.asked
    assert "said" in said
    assert "http://elsewhere.example/x.png" in asked


def test_the_policy_of_the_page_keeps_scripts_and_pictures_out(served: Server, tmp_path: Path) -> None:
    shown, _, _ = look(served.address, tmp_path, "--dump-dom")
    hostile = shown.replace("</main>", "<img src='/picture.png'><script>document.title='taken'</script></main>")
    server = Server(hostile)
    try:
        after, said, _ = look(server.address, tmp_path, "--dump-dom")
    finally:
        server.server.shutdown()
    assert "/picture.png" not in server.asked
    assert "<title>taken" not in after
    assert any("Content Security Policy" in line for line in said)


@pytest.mark.parametrize(("width", "scheme"), [(1200, 1), (1200, 0), (380, 0)])
def test_it_is_drawn_in_light_and_dark_wide_and_narrow(served: Server, tmp_path: Path, width: int, scheme: int) -> None:
    from PIL import Image

    picture = tmp_path / "page.png"
    look(
        served.address, tmp_path, f"--screenshot={picture}", f"--window-size={width},2400", "--hide-scrollbars",
        f"--blink-settings=preferredColorScheme={scheme}",
    )  # fmt: skip
    with Image.open(picture) as drawn:
        grey = drawn.convert("L")
        background = grey.getpixel((2, 2))
        assert isinstance(background, int)
        assert (background > 200) is (scheme == 1)
        assert len(set(grey.resize((100, 200)).tobytes())) > 20  # something is on it


def test_it_prints(served: Server, tmp_path: Path) -> None:
    printed = tmp_path / "page.pdf"
    look(served.address, tmp_path, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    pages = len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))
    assert 4 <= pages <= 12


def test_no_heading_and_no_small_table_is_torn_on_paper(tmp_path: Path) -> None:
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("no pdftotext here (apt-get install poppler-utils)")
    store = new_store(tmp_path)
    with store.session() as session:
        add_submission(session, "first", arms=["full", "no-csja", "no-se", "plain"], corpora=["sedf-sc", "sedf-st"])
        for corpus, people in (("sedf-sc", 6), ("sedf-st", 8)):
            plausible_results(
                session, "first", arms=["full", "no-csja", "no-se", "plain"], corpus=corpus, people=people, folds=2
            )
    page, printed = tmp_path / "page.html", tmp_path / "page.pdf"
    page.write_text(html_document(build_report(store, bootstrap=100)), encoding="utf-8")
    look(page.as_uri(), tmp_path, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    told = subprocess.run([reader, "-layout", str(printed), "-"], capture_output=True, text=True, check=True).stdout
    sheets = [sheet.split() for sheet in told.split("\f") if sheet.strip()]
    assert len(sheets) > 3
    ends = [" ".join(sheet[-6:]) for sheet in sheets]
    assert not [end for end in ends if end.endswith(("seeds.", "matrices", "Comparisons", "Stages", "Details"))], ends
    # A table of six contrasts lies on one sheet: its first and its last row.
    for sheet in map(" ".join, sheets):
        assert ("effect in" in sheet and "contrast" in sheet) <= ("CSJA × SE" in sheet)


def test_a_file_opened_from_the_disk(tmp_path: Path) -> None:
    home = judged_home(tmp_path / "home")
    report = build_report(home.store, bootstrap=200)
    path = tmp_path / "report.html"
    path.write_text(html_document(report, read_extras(home.store, report)), encoding="utf-8")
    shown, said, asked = look(path.as_uri(), tmp_path, "--dump-dom")
    assert said == []
    assert asked == []
    assert "SIMULATED nights" in shown
