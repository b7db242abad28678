"""The live view of a running submission: a panel on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tusp.cli.output import errors

if TYPE_CHECKING:
    from tusp.jobs.driver import Status

SECONDS_BETWEEN_LINES = 15.0


def clock(seconds: float | None) -> str:
    """Minutes and seconds, or a dash when unknown."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def headline(status: Status) -> str:
    """One line: cells done, running, failed, time spent and left."""
    parts = [f"{status.done}/{status.total} cells done"]
    if status.reused:
        parts.append(f"{status.reused} reused")
    parts.append(f"{len(status.running)} running")
    if status.elsewhere:
        parts.append(f"{status.elsewhere} in another submission")
    if status.failed:
        parts.append(f"{len(status.failed)} failed")
    parts.append(f"{clock(time.monotonic() - status.started)} spent")
    if status.seconds_left is not None:
        parts.append(f"about {clock(status.seconds_left)} left")
    return ", ".join(parts)


def slot_lines(status: Status) -> list[str]:
    """One line a running cell: pass, loss, validation macro-F1."""
    lines = []
    for view in status.running:
        loss = "–" if view.loss is None else f"{view.loss:.3f}"
        score = "–" if view.validation_macro_f1 is None else f"{view.validation_macro_f1:.3f}"
        step = f", step {view.step}/{view.steps}" if view.step else ""
        lines.append(
            f"  {view.cell[:12]}  {view.phase}: {view.pass_number}/{view.max_passes} passes{step}, "
            f"loss {loss}, validation macro-F1 {score}"
        )
    return lines


class Live:
    """Shows a submission's status on stderr while it runs."""

    def __init__(self, *, visible: bool) -> None:
        self._panel = RichLive(console=errors, refresh_per_second=4, transient=True) if errors.is_terminal else None
        self._visible = visible
        self._last_line = 0.0
        self._last_done = -1
        self._dashboard_said = False
        self._note_said = ""

    def __enter__(self) -> Live:
        if self._visible and self._panel:
            self._panel.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._visible and self._panel:
            self._panel.stop()

    def show(self, status: Status) -> None:
        """Bring the view up to date; every note is printed once, whether the view is visible or not."""
        if status.note and status.note != self._note_said:
            self._note_said = status.note
            errors.print(status.note, markup=False, soft_wrap=True)
        if not self._visible:
            return
        if status.dashboard_url and not self._dashboard_said:
            self._dashboard_said = True
            errors.print(f"Ray dashboard: {status.dashboard_url}", markup=False)
        if self._panel:
            self._panel.update(self._group(status))
        elif status.done != self._last_done or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_done, self._last_line = status.done, time.monotonic()
            for line in (headline(status), *slot_lines(status)):
                errors.print(line, markup=False, soft_wrap=True)

    @staticmethod
    def _group(status: Status) -> Group:
        table = Table.grid()
        for line in slot_lines(status):
            table.add_row(Text(line))
        return Group(Text(headline(status)), ProgressBar(total=status.total, completed=status.done), table)
