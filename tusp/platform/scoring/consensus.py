"""What several scorers of one night agree on: soft agreement, ranking, consensus.

Source: A. Guillot, F. Sauvet, E. H. During, V. Thorey. Dreem Open Datasets: multi-scored sleep datasets to compare
human and automated sleep staging. IEEE Trans. Neural Syst. Rehabil. Eng. 28(9):1955-1965, 2020,
doi 10.1109/TNSRE.2020.3011181. Everything is worked out in one recording; nothing is fitted across recordings.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from tusp.platform.stages import N_STAGES, UNSCORED

Votes = npt.NDArray[np.int8]
"""Stages by scorer and epoch: shape [n_scorers, n_epochs], -1 where a scorer did not score."""

BEST: Final = 4
"""Scorers whose consensus a model is judged against; a human is judged against that of the other four."""


def soft_agreement(votes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How well each scorer agrees with the others, who may disagree among themselves.

    With ``n_i(t, k)`` the number of the other scorers who gave epoch ``t`` the stage ``k``, the soft agreement of
    scorer ``i`` is the mean over the epochs of ``n_i(t, stage of i at t) / max_k n_i(t, k)``. Unscored counts as a
    stage of its own. NaN when there is no epoch or no other scorer.

    Args:
        votes: [n_scorers, n_epochs], codes 0 to 4 or -1.

    Returns:
        float64 [n_scorers], 0 to 1.

    Raises:
        ValueError: not a table of stage codes.
    """
    table = _checked(votes)
    n_scorers, n_epochs = table.shape
    if n_scorers < 2 or n_epochs == 0:
        return np.full(n_scorers, np.nan)
    cast = _counts(table)
    stages = np.arange(UNSCORED, N_STAGES)[:, None]
    agreement = np.empty(n_scorers)
    for scorer, own in enumerate(table):
        others = cast - (own == stages)
        given = np.take_along_axis(others, own[None].astype(np.intp) - UNSCORED, axis=0)[0]
        agreement[scorer] = (given / others.max(axis=0)).mean()
    return agreement


def ranking(votes: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Scorers by soft agreement, the best first; scorers who agree equally well keep their order.

    Args:
        votes: [n_scorers, n_epochs], codes 0 to 4 or -1.

    Returns:
        Row numbers, [n_scorers].
    """
    return np.argsort(-soft_agreement(votes), kind="stable")


def consensus(votes: npt.ArrayLike, ranked: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """The majority's stage in each epoch; of tied stages, the one that the best-ranked scorer among their voters gave.

    Args:
        votes: [n_scorers, n_epochs], codes 0 to 4 or -1; unscored counts as a stage of its own.
        ranked: row numbers of the scorers who vote, the best first; those left out do not vote.

    Returns:
        int8 [n_epochs], -1 where most did not score.

    Raises:
        ValueError: not a table of stage codes, or ``ranked`` does not name rows of it, each at most once.
    """
    table = _checked(votes)
    order = np.asarray(ranked)
    rows = range(len(table))
    if (
        order.ndim != 1
        or not order.size
        or len(set(order.tolist())) != order.size
        or not set(order.tolist()) <= set(rows)
    ):
        raise ValueError(f"the ranking {order.tolist()} does not name scorers 0 to {len(table) - 1}, each at most once")
    table = table[order]
    cast = _counts(table)
    own = np.take_along_axis(cast, table.astype(np.intp) - UNSCORED, axis=0)
    winner = (own == cast.max(axis=0)).argmax(axis=0)  # the first, so the best-ranked, whose stage has most votes
    stages: npt.NDArray[np.int8] = np.take_along_axis(table, winner[None], axis=0)[0]
    return stages


def winning_share(votes: npt.ArrayLike, stages: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Share of the scorers who gave the consensus's stage: its probability, float64 [n_epochs]."""
    table = _checked(votes)
    share: npt.NDArray[np.float64] = (table == np.asarray(stages)).mean(axis=0)
    return share


def best_four(votes: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """Consensus of the four scorers with the highest soft agreement: what a model is judged against.

    Of fewer than five scorers all vote.

    Args:
        votes: [n_scorers, n_epochs], codes 0 to 4 or -1.

    Returns:
        int8 [n_epochs], -1 where most did not score.
    """
    return consensus(votes, ranking(votes)[:BEST])


def consensus_of_others(votes: npt.ArrayLike, scorer: int) -> npt.NDArray[np.int8]:
    """Consensus of everybody but one scorer: what that scorer is judged against.

    The others keep the order of the ranking among all.

    Args:
        votes: [n_scorers, n_epochs], codes 0 to 4 or -1; at least two scorers.
        scorer: row of the one who is judged.

    Returns:
        int8 [n_epochs], -1 where most did not score.

    Raises:
        ValueError: there is no such scorer, or nobody else.
    """
    ranked = ranking(votes)
    if scorer not in ranked:
        raise ValueError(f"no scorer {scorer}; there are {len(ranked)}")
    return consensus(votes, ranked[ranked != scorer])


def _checked(votes: npt.ArrayLike) -> Votes:
    table = np.asarray(votes)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"votes have shape {list(table.shape)}; one row per scorer is [n_scorers, n_epochs]")
    if table.dtype.kind not in "iu" and table.size:
        raise ValueError(f"votes are of type {table.dtype}; stage codes are integers")
    if table.size and (table.min() < UNSCORED or table.max() >= N_STAGES):
        raise ValueError(f"votes run from {table.min()} to {table.max()}; codes are {UNSCORED} to {N_STAGES - 1}")
    return table.astype(np.int8)


def _counts(table: Votes) -> npt.NDArray[np.int64]:
    """Votes by stage (unscored first) and epoch, [1 + n_stages, n_epochs]."""
    return np.stack([(table == stage).sum(axis=0) for stage in range(UNSCORED, N_STAGES)])
