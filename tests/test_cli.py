"""The command line as a whole: what it lists, how it refuses, how fast it answers. Commands have tests of their own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tusp import __version__
from tusp.cli import main
from tusp.datasets.simulation import simulate
from tusp.platform.errors import CellError, DataError, StoreError, TuspError, UserError

TUSP = str(Path(sys.executable).with_name("tusp"))


def tusp(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program in ``home``, without settings of whoever runs the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TUSP_")}
    return subprocess.run(
        [TUSP, *arguments], cwd=home, env={**environment, "TUSP_HOME": str(home)}, capture_output=True, text=True
    )


def listed(*arguments: str) -> list[str]:
    """Commands that a group's help lists."""
    shown = CliRunner().invoke(main.app, [*arguments, "--help"])
    assert shown.exit_code == 0
    return [line.split()[0] for line in shown.output.partition("Commands:")[2].splitlines() if line.strip()]


def test_help_lists_exactly_the_commands_that_exist() -> None:
    assert sorted(listed()) == [
        "cancel",
        "datasets",
        "db",
        "doctor",
        "logs",
        "mlflow",
        "report",
        "score",
        "status",
        "submit",
        "validate",
    ]
    assert sorted(listed("datasets")) == [
        "add",
        "audit",
        "fetch",
        "gc",
        "list",
        "prepare",
        "remove",
        "simulate",
        "splits",
    ]
    assert sorted(listed("datasets", "splits")) == ["export", "show", "verify"]
    assert sorted(listed("db")) == ["check", "upgrade"]


def test_help_takes_less_than_half_a_second() -> None:
    def processor_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    taken = []
    for _ in range(3):
        before = processor_seconds()
        subprocess.run([TUSP, "--help"], check=True, capture_output=True)
        taken.append(processor_seconds() - before)
    assert min(taken) < 0.5


def test_the_version_is_shown() -> None:
    assert CliRunner().invoke(main.app, ["--version"]).output == f"tusp {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["datasets", "nothing"],
        ["submit", "--nothing"],
        ["submit", "--folds", "many"],
        ["datasets", "add", "sedf-sc"],
        ["status", "--limit", "0"],
        ["mlflow", "--port", "70000"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_has_exit_status_2(arguments: list[str]) -> None:
    refused = CliRunner().invoke(main.app, arguments)
    assert refused.exit_code == 2
    assert "Error: " in refused.output
    assert "Traceback" not in refused.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--db", "mysql://host/tusp", "status"], "tusp: a store lives in SQLite or PostgreSQL, not in mysql"),
        (["datasets", "audit", "nothing"], "tusp: no corpus 'nothing'; none is registered yet"),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr_and_exit_status_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    refused = tusp(tmp_path, *arguments)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith(said)
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status"), [(UserError, 2), (DataError, 2), (StoreError, 2), (TuspError, 2), (CellError, 1)]
)
def test_each_family_of_error_has_its_exit_status(
    error: type[TuspError], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error("night [4] is empty; leave it out")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == status
    assert capsys.readouterr().err == "tusp: night [4] is empty; leave it out\n"


def test_a_defect_of_tusp_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(ZeroDivisionError):
        main.run()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory that is the user's home, without TUSP_* variables."""
    for name in list(os.environ):
        if name.startswith("TUSP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flags_beat_variables_beat_the_file_beat_the_default(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> str:
        # doctor says where the home is, and changes nothing.
        shown = CliRunner().invoke(main.app, [*flags, "doctor", "--json"])
        findings = {found["name"]: found["says"] for found in json.loads(shown.output)["findings"]}
        return findings["home"].removesuffix(" (made at first use)")

    flags: list[str] = []
    assert home() == str(elsewhere / ".tusp")
    (elsewhere / "tusp.toml").write_text(f'home = "{elsewhere}/of-file"\n')
    assert home() == str(elsewhere / "of-file")
    monkeypatch.setenv("TUSP_HOME", str(elsewhere / "of-variable"))
    assert home() == str(elsewhere / "of-variable")
    flags += ["--home", str(elsewhere / "of-flag")]
    assert home() == str(elsewhere / "of-flag")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("home = [", "not valid TOML"),
        ('house = "/x"', "unknown setting 'house'; known are address, db, home"),
        ("home = 4", "home = 4 must be a string"),
    ],
)
def test_a_wrong_settings_file_is_named(
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str,
    said: str,
) -> None:
    (elsewhere / "tusp.toml").write_text(content)
    monkeypatch.setattr(sys, "argv", ["tusp", "datasets", "list"])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"tusp: {elsewhere / 'tusp.toml'}: ")
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_embedded_corpora_that_are_named_are_run_with_recipe_quick_too(tmp_path: Path) -> None:
    """As the help says; any other corpus beside them, and the recipe is standard."""
    home = str(tmp_path / "home")
    for name, seed in (("sedf-sc-sim", 1), ("other", 2)):
        simulate("sedf-sc", tmp_path / name, subjects=3, nights=1, hours=0.5, seed=seed)
        added = CliRunner().invoke(
            main.app, ["--home", home, "datasets", "add", "sedf-sc", str(tmp_path / name), "--name", name]
        )
        assert added.exit_code == 0, added.output

    def recipe(*corpora: str) -> str:
        named = [word for corpus in corpora for word in ("--corpus", corpus)]
        found = CliRunner().invoke(main.app, ["--home", home, "submit", *named, "--folds", "3", "--dry-run"])
        assert found.exit_code == 0, found.output
        return "quick" if "Recipe quick:" in found.output else "standard"

    assert recipe("sedf-sc-sim") == "quick"
    assert recipe("sedf-sc-sim", "other") == "standard"
