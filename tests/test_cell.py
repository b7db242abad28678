"""One cell from plan to files: complete, checksummed, unharmed by kill -9, never run on other nights than planned."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from training_nights import SHORT, night

from tusp.dashboards.predictions import read_prediction
from tusp.datasets.prepared import META, STAGES, PreparedRecording
from tusp.jobs import cell as cell_module
from tusp.jobs.cell import OUTCOME, reason_of, run_cell
from tusp.jobs.checkpoints import with_sorted_header
from tusp.jobs.job import CellJob, forget_cell
from tusp.jobs.plan import CellTask, CorpusNights, Request, make_plan
from tusp.jobs.precision import resolve_precision
from tusp.models.families import from_plan
from tusp.models.tinyustaging import build_network, parameter_counts
from tusp.platform.errors import CellError, DataError, UserError
from tusp.platform.identity import file_sha256
from tusp.platform.scoring.counts import confusion
from tusp.platform.scoring.rules import RULES, rule_mask

HERE = Path(__file__).parent


def task_of(nights: Sequence[PreparedRecording], **changes: Any) -> CellTask:
    """The first cell (fold 0, full arm) of a two-fold submission."""
    corpus = CorpusNights(name="toy", simulated=nights[0].simulated, recordings=nights)
    return make_plan(Request(ablation="csja", recipe=replace(SHORT, **changes), folds=2), [corpus]).tasks[0]


def job_of(task: CellTask, home: Path) -> CellJob:
    nights = {corpus: {name: str(path) for name, path in n.items()} for corpus, n in task.nights.items()}
    return CellJob(id=task.cell.id, plan=task.cell.plan, home=str(home), nights=nights)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="module")
def nights(root: Path) -> list[PreparedRecording]:
    """Five people; the first has two nights, and a name that no file can have."""
    return [
        night(root, "p0/1", subject="p0", n_epochs=14, seed=0),
        night(root, "p0_1", subject="p0", n_epochs=13, seed=1),
        *(night(root, f"n{number}", n_epochs=14, seed=number) for number in range(2, 6)),
    ]


@pytest.fixture(scope="module")
def task(nights: list[PreparedRecording]) -> CellTask:
    found = [
        task
        for fold in range(2)
        for task in make_plan(
            Request(ablation="csja", recipe=SHORT, folds=2),
            [CorpusNights(name="toy", simulated=True, recordings=nights)],
        ).tasks
        if task.cell.fold == fold and task.cell.arm == "full" and "p0/1" in task.cell.plan["corpora"][0]["test"]
    ]
    return found[0]


@pytest.fixture(scope="module")
def done(task: CellTask, tmp_path_factory: pytest.TempPathFactory) -> tuple[CellJob, dict[str, Any]]:
    """An uninterrupted cell."""
    job = job_of(task, tmp_path_factory.mktemp("home"))
    return job, dict(run_cell(job))


def checksums(outcome: Any) -> dict[str, str]:
    """Of everything but the history, which holds seconds."""
    return {entry["path"]: entry["sha256"] for entry in outcome["artefacts"] if entry["kind"] != "history"}


def judged(outcome: Any) -> dict[str, Any]:
    """What must not depend on when and how often a cell was cut."""
    times = {
        "training_seconds",
        "prediction_seconds",
        "device_seconds",
        "peak_memory_bytes",
        "inference_epochs_per_second",
        "energy_joules",
        "energy_missing",
    }
    return {
        "result": {key: value for key, value in outcome["result"].items() if key not in times},
        "counts": outcome["counts"],
        "curve": [{key: value for key, value in row.items() if key != "seconds"} for row in outcome["curve"]],
        "checksums": checksums(outcome),
    }


# --- what a cell leaves ---


def test_a_cell_leaves_these_files_and_no_checkpoint(done: tuple[CellJob, dict[str, Any]]) -> None:
    job, outcome = done
    files = {path.relative_to(job.folder).as_posix() for path in job.folder.rglob("*") if path.is_file()}
    named = {
        Path(entry["path"]).relative_to(Path("cells") / job.id[:2] / job.id).as_posix()
        for entry in outcome["artefacts"]
    }
    assert files == {"lock", OUTCOME, "weights.safetensors", "history.json", *named}
    tested = job.plan["corpora"][0]["test"]
    assert {entry["recording"] for entry in outcome["artefacts"] if entry["kind"] == "predictions"} == {
        f"toy/{name}" for name in tested
    }
    assert len([name for name in files if name.startswith("predictions/toy/")]) == len(tested)


def test_checksums_and_sizes_are_those_of_the_files(done: tuple[CellJob, dict[str, Any]]) -> None:
    job, outcome = done
    for entry in outcome["artefacts"]:
        path = Path(job.home) / entry["path"]
        assert (file_sha256(path), path.stat().st_size) == (entry["sha256"], entry["size_bytes"])


def test_how_it_was_computed_is_recorded(done: tuple[CellJob, dict[str, Any]]) -> None:
    job, outcome = done
    recorded = outcome["environment"]
    network = build_network(from_plan(job.plan["model"])[1])
    assert recorded["precision"] == resolve_precision("auto", "cpu", network)
    assert recorded["compile"] == {"used": False, "reason": "not on a CPU"}
    assert (recorded["feed"], recorded["processes"], recorded["tf32"]) == ("stream", 1, False)
    assert recorded["native"].startswith(("on", "off"))
    assert "micro_batch" not in recorded


def test_a_wrong_way_of_compiling_is_refused(task: CellTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSP_COMPILE", "yes")
    with pytest.raises(UserError, match="compile = 'yes': must be one of auto, never, always"):
        run_cell(job_of(task, tmp_path))


def test_the_outcome_on_disk_is_the_one_returned(done: tuple[CellJob, dict[str, Any]]) -> None:
    job, outcome = done
    assert json.loads((job.folder / OUTCOME).read_text()) == outcome
    assert json.loads((job.folder / "history.json").read_text()) == outcome["curve"]


def test_counts_are_those_recounted_from_the_predictions(
    done: tuple[CellJob, dict[str, Any]], nights: list[PreparedRecording]
) -> None:
    job, outcome = done
    by_name = {recording.name: recording for recording in nights}
    paths = {entry["recording"]: entry["path"] for entry in outcome["artefacts"] if entry["kind"] == "predictions"}
    assert len(outcome["counts"]) == len(RULES) * len(paths)
    for row in outcome["counts"]:
        recording = by_name[row["recording"]]
        assert (row["corpus"], row["subject"]) == ("toy", recording.subject)
        kept = read_prediction(Path(job.home) / paths[f"toy/{recording.name}"])
        np.testing.assert_array_equal(kept.true, recording.stages())
        np.testing.assert_array_equal(kept.predicted, kept.probabilities.argmax(axis=1))
        np.testing.assert_allclose(kept.probabilities.sum(axis=1), 1, atol=1e-5)
        mask = rule_mask(recording.stages(), row["rule"])
        assert row["matrix"] == confusion(kept.true[mask], kept.predicted[mask]).tolist()


def test_predictions_say_whose_they_are(done: tuple[CellJob, dict[str, Any]]) -> None:
    job, outcome = done
    for entry in outcome["artefacts"]:
        if entry["kind"] != "predictions":
            continue
        with safe_open(Path(job.home) / entry["path"], framework="numpy") as file:
            said = file.metadata()
            assert set(file.keys()) == {"probabilities", "predicted", "true"}
            types = {name: str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118
        assert types == {"probabilities": "float32", "predicted": "int8", "true": "int8"}
        assert f"{said['corpus']}/{said['recording']}" == entry["recording"]
        assert (said["cell"], said["first_epoch"], json.loads(said["simulated"])) == (job.id, "2", True)
        assert said["subject"] == ("p0" if said["recording"].startswith("p0") else said["recording"])


def test_result_holds_what_the_report_needs(done: tuple[CellJob, dict[str, Any]]) -> None:
    job, outcome = done
    result = outcome["result"]
    network = build_network(from_plan(job.plan["model"])[1])
    assert (result["n_parameters"], result["n_trainable"]) == parameter_counts(network)
    assert result["passes"] == len(outcome["curve"]) == 3
    best = outcome["curve"][result["best_pass"] - 1]
    assert result["validation_macro_f1"] == best["validation_macro_f1"]
    assert result["validation_macro_f1"] == max(row["validation_macro_f1"] for row in outcome["curve"])
    assert result["training_seconds"] > 0
    assert result["prediction_seconds"] > 0
    assert (result["device"], result["threads"]) == ("cpu", 1)
    assert sum(result["train_stage_counts"]) > 0
    assert outcome["resumed_from_pass"] is None
    assert outcome["environment"]["threads"] == 1


def test_kept_weights_give_the_kept_predictions(
    done: tuple[CellJob, dict[str, Any]], nights: list[PreparedRecording]
) -> None:
    import torch

    from tusp.jobs.prediction import predict_night

    job, outcome = done
    network = build_network(from_plan(job.plan["model"])[1])
    weights = load_file(job.folder / "weights.safetensors")
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    entry = next(entry for entry in outcome["artefacts"] if entry["kind"] == "predictions")
    recording = next(n for n in nights if f"toy/{n.name}" == entry["recording"])
    known = np.array(outcome["result"]["train_stage_counts"]) > 0
    again = predict_night(network, recording, channels=("EEG", "EOG"), window_epochs=6, stride=4, known_stages=known)
    np.testing.assert_array_equal(read_prediction(Path(job.home) / entry["path"]).probabilities, again)


def test_equal_contents_have_equal_bytes_whatever_the_order_of_their_metadata() -> None:
    from safetensors.numpy import load, save

    tensors = {"b": np.arange(5, dtype=np.float32), "a": np.arange(3, dtype=np.int8)}
    metadata = {f"key{number}": "x" * number for number in range(9)}
    written = {with_sorted_header(save(tensors, dict(reversed(metadata.items())))) for _ in range(8)}
    written |= {with_sorted_header(save(tensors, metadata)) for _ in range(8)}
    assert len(written) == 1
    content = written.pop()
    assert all(np.array_equal(value, tensors[name]) for name, value in load(content).items())
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    assert json.loads(content[8 : 8 + size])["__metadata__"] == metadata


# --- run again, cut, killed ---


def test_a_second_run_returns_the_complete_outcome_at_once(
    done: tuple[CellJob, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, outcome = done
    monkeypatch.setattr(cell_module, "fit_network", None)
    assert run_cell(job) == outcome


def test_a_complete_cell_whose_file_was_changed_is_run_anew(task: CellTask, tmp_path: Path) -> None:
    job = job_of(task, tmp_path)
    first = run_cell(job)
    path = next((job.folder / "predictions").rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert judged(run_cell(job)) == judged(first)
    assert checksums(first)[path.relative_to(tmp_path).as_posix()] == file_sha256(path)
    forget_cell(tmp_path, job.id)
    assert not job.folder.exists()


KILLED_AT = {
    "inside the first pass": "after(fitting, 'save_checkpoint', 2)",
    "between a checkpoint's tensors and its state": "before(checkpoints, 'write_json_atomic', 3)",
    "between two predictions": "after(cell, '_keep_prediction', 1)",
    "before the outcome": "before(cell, 'write_json_atomic', 2)",
    "before the checkpoint is removed": "after(cell, 'write_json_atomic', 2)",
}

KILLER = """
import json, os, signal, sys
import torch._dynamo  # else every life imports it
from tusp.jobs import cell, checkpoints, fitting
from tusp.jobs.job import CellJob

def dying(module, name, call, die_first):
    function, calls = getattr(module, name), []
    def counted(*arguments, **named):
        calls.append(1)
        if die_first and len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(module, name, counted)

def before(module, name, call):
    dying(module, name, call, True)

def after(module, name, call):
    dying(module, name, call, False)

job = CellJob(**json.loads(sys.argv[1]))
for code in sys.argv[2:]:
    child = os.fork()  # a process of its own for every life of the cell, without importing torch anew
    if child == 0:
        eval(code)
        cell.run_cell(job, checkpoint_seconds=-1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, (job.folder / cell.OUTCOME).exists(), flush=True)
"""


def test_killed_again_and_again_a_cell_ends_with_the_same_bits(
    task: CellTask, done: tuple[CellJob, dict[str, Any]], tmp_path: Path
) -> None:
    """Each process goes on where the one before was killed, until this one finishes."""
    job = job_of(task, tmp_path)
    process = subprocess.run(
        [sys.executable, "-c", KILLER, json.dumps(asdict(job)), *KILLED_AT.values()],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # Every life ended by signal 9, and only the last one with an outcome on disk.
    lives = dict(zip(KILLED_AT, process.stdout.splitlines(), strict=True))
    assert lives == {**dict.fromkeys(KILLED_AT, "-9 False"), "before the checkpoint is removed": "-9 True"}, (
        process.stderr
    )
    outcome = run_cell(job)
    assert judged(outcome) == judged(done[1])
    assert outcome["resumed_from_pass"] is not None


def test_a_lock_held_by_another_process_is_waited_for(task: CellTask, tmp_path: Path) -> None:
    job = job_of(task, tmp_path)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from tusp.platform.files import file_lock\n"
            "with file_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()",
            str(job.folder / "lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        runner = threading.Thread(target=run_cell, args=(job,))
        runner.start()
        time.sleep(0.5)
        assert {path.name for path in job.folder.iterdir()} == {"lock"}
        holder.kill()  # the kernel gives the lock back
        runner.join(60)
        assert (job.folder / OUTCOME).exists()
    finally:
        holder.kill()
        holder.communicate()


# --- refusals ---


def refused(job: CellJob, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        run_cell(job)
    assert "\n" not in reason_of(caught.value)
    assert not (job.folder / OUTCOME).exists()


@pytest.mark.parametrize("role", ["train", "validation", "test"])
def test_another_night_than_planned_is_refused(
    task: CellTask, nights: list[PreparedRecording], root: Path, tmp_path: Path, role: str
) -> None:
    name = next(iter(task.cell.plan["corpora"][0][role]))
    other = night(root, name, n_epochs=14, version=2)
    job = job_of(task, tmp_path)
    moved = replace(job, nights={"toy": {**job.nights["toy"], name: str(other.folder)}})
    refused(moved, CellError, f"holds toy/{name} {other.fingerprint[:12]}, but the cell was planned with toy/{name}")


@pytest.mark.parametrize("file", [STAGES, META, "signals.npy"])
def test_a_tampered_night_is_refused(tmp_path: Path, file: str) -> None:
    mine = [night(tmp_path / "prepared", f"n{number}", n_epochs=12, seed=number) for number in range(5)]
    task = task_of(mine)
    job = job_of(task, tmp_path)
    path = Path(job.nights["toy"][next(iter(task.cell.plan["corpora"][0]["train"]))]) / file
    content = path.read_bytes()
    path.write_bytes(
        content[:-1] if file == "signals.npy" else content.replace(b"\x01", b"\x02").replace(b"toy", b"joy")
    )
    refused(job, DataError, "delete this folder and prepare the corpus again")


def test_a_damaged_checkpoint_fails_the_cell_in_one_line(task: CellTask, tmp_path: Path) -> None:
    job = job_of(task, tmp_path)
    job.folder.mkdir(parents=True)
    (job.folder / "checkpoint.json").write_text('{"tensors": "pass-1.safetensors", "sha256": "0", "state": {}}')
    refused(job, CellError, "checkpoint is damaged")


def test_a_stage_that_no_training_night_holds_is_never_predicted(tmp_path: Path) -> None:
    """Nobody but the tested people has N3."""
    plain = [0] * 3 + [1] * 3 + [2] * 3 + [4] * 3
    mine = [night(tmp_path, f"n{number}", stages=plain, seed=number) for number in range(5)]
    tested = task_of(mine).cell.plan["corpora"][0]["test"]
    mine = [
        night(tmp_path, one.name, stages=[3] * 6 + plain, seed=9, version=2) if one.name in tested else one
        for one in mine
    ]
    job = job_of(task_of(mine), tmp_path)
    outcome = run_cell(job)
    assert outcome["result"]["train_stage_counts"][3] == 0
    matrix = np.sum([row["matrix"] for row in outcome["counts"] if row["rule"] == "full"], axis=0)
    assert matrix[3].sum() == 6 * len(tested)
    assert matrix[:, 3].sum() == 0


def test_reasons_are_one_line() -> None:
    assert reason_of(CellError("why")) == "why"
    assert reason_of(ValueError("first\nsecond")) == "ValueError: first"
    assert reason_of(KeyError()) == "KeyError"
