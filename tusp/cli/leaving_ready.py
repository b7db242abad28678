"""What commands that bring results do at their end: the reports that are asked for next are there already."""

from __future__ import annotations

from pathlib import Path

from tusp.cli.output import console, errors
from tusp.platform.errors import TuspError
from tusp.platform.store.session import Store


def leave_reports_ready(store: Store, *, kept: Path, submission: str | None = None) -> None:
    """Make the report of everything and of one submission (None for the latest), so that ``tusp report`` finds them,
    also from another home; says so where one cannot be made."""
    from threadpoolctl import threadpool_limits

    from tusp.dashboards.kept_texts import look_of
    from tusp.dashboards.ready import make_ready

    try:
        # One thread, as `tusp report`: no digit depends on how many cores there are.
        with threadpool_limits(1, user_api="blas"):
            make_ready(store, kept=kept, look=look_of(console), submissions=(submission,))
    except TuspError as error:  # of other results: what was asked for is done and said
        errors.print(f"The report of all submissions: {error}", markup=False, soft_wrap=True)
