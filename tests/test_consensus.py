"""Soft agreement, ranking and consensus: by hand, in words, and on the five real scorers of 25 nights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from tusp.platform.scoring.consensus import (
    best_four,
    consensus,
    consensus_of_others,
    ranking,
    soft_agreement,
    winning_share,
)

TRIMS = {
    "5bf0f969-304c-581e-949c-50c108f62846": slice(60, None),
    "b5d5785d-87ee-5078-b9b9-aac6abd4d8de": slice(60, None),
    "3e842aa8-bcd9-521e-93a2-72124233fe2c": slice(620),
}


def real_votes(shared_data: Path) -> dict[str, np.ndarray]:
    """Votes [5, n] of every DOD-H night on the cut span."""
    scorers = json.loads((shared_data / "dod-h" / "scorers.json").read_text())
    votes = {}
    for name in scorers["scorer_1"]:
        table = np.array([scorers[scorer][name] for scorer in sorted(scorers)])
        first = max(int(np.flatnonzero(row >= 0)[0]) for row in table)
        last = min(int(np.flatnonzero(row >= 0)[-1]) for row in table)
        votes[name] = table[:, first : last + 1][:, TRIMS.get(name, slice(None))]
    return votes


def test_soft_agreement_by_hand() -> None:
    votes = [[0, 2, 2], [0, 2, 1], [0, 1, -1]]
    # scorer 0: 2/2; others 2 and 1, one vote each: 1/1; others 1 and -1: nobody gave 2: 0
    # scorer 2: 2/2; others both 2: 0/2; others 2 and 1: nobody gave -1: 0
    assert soft_agreement(votes) == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert ranking(votes).tolist() == [0, 1, 2]


def _in_words(votes: np.ndarray) -> list[float]:
    agreement = []
    for scorer, own in enumerate(votes):
        shares = []
        for epoch, stage in enumerate(own):
            others = [votes[i][epoch] for i in range(len(votes)) if i != scorer]
            shares.append(others.count(stage) / max(others.count(other) for other in others))
        agreement.append(float(np.mean(shares)))
    return agreement


@given(st.integers(2, 6).flatmap(lambda n: arrays(np.int8, (n, 7), elements=st.integers(-1, 4))))
def test_the_formulas_in_words(votes: np.ndarray) -> None:
    assert soft_agreement(votes) == pytest.approx(_in_words(votes))
    ranked = ranking(votes)
    stages = consensus(votes, ranked)
    for epoch, stage in enumerate(stages):
        column = [int(votes[i][epoch]) for i in ranked]
        most = max(column.count(other) for other in column)
        assert stage == next(other for other in column if column.count(other) == most)
        assert winning_share(votes, stages)[epoch] == pytest.approx(most / len(column))


def test_ties_go_to_the_best_ranked_of_the_tied() -> None:
    votes = [[4, 0, 0], [1, 1, 0], [1, 0, 0], [2, 1, 0], [2, 3, 0]]
    assert consensus(votes, [0, 1, 2, 3, 4]).tolist() == [1, 0, 0]
    assert consensus(votes, [4, 3, 0, 1, 2]).tolist() == [2, 1, 0]
    assert consensus(votes, [4]).tolist() == [2, 3, 0]


def test_unscored_is_a_stage_of_its_own() -> None:
    votes = np.array([[-1, -1, 0], [-1, 2, 0], [2, -1, 0], [0, 2, 0]], np.int8)
    stages = consensus(votes, [0, 1, 2, 3])
    assert stages.tolist() == [-1, -1, 0]
    assert stages.dtype == np.int8


def test_fewer_scorers() -> None:
    assert best_four([[1, 2, 3]]).tolist() == [1, 2, 3]
    assert best_four([[1, 2, 3], [1, 2, 2]]).tolist() == [1, 2, 3]
    assert np.isnan(soft_agreement([[1, 2, 3]])).all()
    assert best_four(np.zeros((5, 0), np.int8)).shape == (0,)
    assert consensus_of_others([[1, 2], [3, 4]], 0).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("votes", "ranked", "reason"),
    [
        ([1, 2], [0], "one row per scorer"),
        ([[1, 5]], [0], "codes are -1 to 4"),
        ([[1, -2]], [0], "codes are -1 to 4"),
        ([[0.5, 1.0]], [0], "stage codes are integers"),
        (np.zeros((0, 4), int), [0], "one row per scorer"),
        ([[1, 2], [1, 2]], [0, 0], "each at most once"),
        ([[1, 2], [1, 2]], [0, 2], "each at most once"),
        ([[1, 2], [1, 2]], [], "each at most once"),
    ],
)
def test_what_is_no_table_of_stages(votes: object, ranked: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        consensus(votes, ranked)


def test_nobody_else() -> None:
    with pytest.raises(ValueError, match="each at most once"):
        consensus_of_others([[1, 2]], 0)
    with pytest.raises(ValueError, match="no scorer 5"):
        consensus_of_others([[1, 2], [1, 2]], 5)


def test_the_real_consensus_of_25_nights(shared_data: Path) -> None:
    """Published models and five humans, judged as the paper judges them, pooled over the epochs."""
    models = json.loads((shared_data / "dod-h" / "models.json").read_text())
    votes = real_votes(shared_data)
    assert len(votes) == 25
    four = {name: best_four(table) for name, table in votes.items()}
    assert all(len(four[name]) == len(hypnogram[name]) for hypnogram in models.values() for name in four)
    pooled = np.concatenate(list(four.values()))
    assert np.bincount(pooled + 1).tolist() == [3, 3037, 1505, 11879, 3514, 4727]
    five = np.concatenate([consensus(table, ranking(table)) for table in votes.values()])
    assert np.bincount(five + 1).tolist() == [0, 3075, 1463, 12000, 3442, 4685]

    def figures(true: np.ndarray, predicted: np.ndarray) -> list[float]:
        judged = (true >= 0) & (predicted >= 0)
        true, predicted = true[judged], predicted[judged]
        return [
            float(accuracy_score(true, predicted)),
            float(cohen_kappa_score(true, predicted)),
            float(f1_score(true, predicted, average="macro")),
        ]

    published = {"SimpleNet": [0.873, 0.815, 0.822], "DeepSleepNet": [0.873, 0.816, 0.822]}
    published["SeqSleepNet"] = [0.846, 0.776, 0.796]
    for model, expected in published.items():
        predicted = np.concatenate([np.array(models[model][name]) for name in four])
        assert figures(pooled, predicted) == pytest.approx(expected, abs=6e-4)
    humans = []
    for scorer in range(5):
        true = np.concatenate([consensus_of_others(table, scorer) for table in votes.values()])
        humans.append(figures(true, np.concatenate([table[scorer] for table in votes.values()])))
    assert np.mean(humans, axis=0) == pytest.approx([0.838, 0.768, 0.784], abs=6e-4)
