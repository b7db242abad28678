"""Stage transitions: a Markov chain of the training hypnograms smooths the logistic regression on band powers.

Without signals the chain alone would give every epoch in the middle of a night the same stage, that of its stationary
distribution, which is the majority baseline again. So it is judged where it says something: as the prior over time of
a simple classifier of single epochs (a hidden Markov model, solved by the forward-backward algorithm; Rabiner 1989).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tusp.models.baselines.band_features import training_matrix
from tusp.models.baselines.band_power import BandPowerLogistic
from tusp.models.baselines.estimator import Night, Probabilities, Signals, Tensors
from tusp.models.baselines.settings import BandPowerConfig, TransitionConfig
from tusp.platform.stages import N_STAGES

Array = npt.NDArray[np.float64]


def forward_backward(first: Array, transition: Array, likelihood: Array) -> Array:
    """Probability [n, k] of every state at every step, given all n observations.

    Args:
        first: [k] probabilities of the first state.
        transition: [k, k], row = from, column = to; rows sum to 1.
        likelihood: [n, k] of the observation under each state, each row up to a factor.
    """
    n = len(likelihood)
    forward, backward = np.empty_like(likelihood), np.ones_like(likelihood)
    for step in range(n):
        reached = first if step == 0 else forward[step - 1] @ transition
        joint = reached * likelihood[step]
        forward[step] = joint / joint.sum()
    for step in range(n - 2, -1, -1):
        seen = transition @ (likelihood[step + 1] * backward[step + 1])
        backward[step] = seen / seen.sum()
    both = forward * backward
    return np.asarray(both / both.sum(axis=1, keepdims=True))


class Transition:
    """A chain of stages over the logistic regression on band powers of single epochs."""

    def __init__(self, config: TransitionConfig) -> None:
        self.config = config
        self.classifier = BandPowerLogistic(
            BandPowerConfig(
                n_channels=config.n_channels,
                neighbours=config.neighbours,
                inverse_penalty=config.inverse_penalty,
                most_epochs=config.most_epochs,
            )
        )
        self.first = np.zeros(N_STAGES)
        self.transition = np.zeros((N_STAGES, N_STAGES))

    def fit(self, nights: Iterable[Night], *, seed: int) -> Self:
        """Count the transitions between scored neighbours and fit the classifier. See ``Estimator.fit``.

        Only what directly follows is a transition: an unscored epoch between two scored ones breaks the chain.
        """
        counts = np.zeros((N_STAGES, N_STAGES))
        first = np.zeros(N_STAGES)

        def counted() -> Iterator[Night]:
            for signals, stages in nights:
                codes = np.asarray(stages, np.int64)
                before, after = codes[:-1], codes[1:]
                both = (before >= 0) & (after >= 0)
                np.add.at(counts, (before[both], after[both]), 1)
                scored = codes[codes >= 0]
                if len(scored):
                    first[scored[0]] += 1
                yield signals, stages

        config = self.config
        x, y = training_matrix(counted(), neighbours=config.neighbours, most_epochs=config.most_epochs, seed=seed)
        self.classifier.fit_features(x, y)
        present = np.unique(y)
        among = np.ix_(present, present)
        self.transition, self.first = np.zeros_like(counts), np.zeros_like(first)
        smooth = counts[among] + config.pseudo_count
        self.transition[among] = smooth / smooth.sum(axis=1, keepdims=True)
        begins = first[present] + config.pseudo_count
        self.first[present] = begins / begins.sum()
        return self

    def probabilities(self, signals: Signals) -> Probabilities:
        """See ``Estimator.probabilities``.

        The classifier was fitted with every stage weighted alike, so its probabilities are, up to a factor per epoch,
        the likelihoods that the chain needs.
        """
        present = np.flatnonzero(self.first)
        likelihood = self.classifier.probabilities(signals)[:, present].astype(np.float64)
        result = np.zeros((len(likelihood), N_STAGES), np.float32)
        # The floor keeps a night alive in which single epochs contradict the chain beyond the smallest number.
        result[:, present] = forward_backward(
            self.first[present], self.transition[np.ix_(present, present)], np.maximum(likelihood, 1e-12)
        )
        return result

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See ``Estimator.tensors``."""
        return {"first": self.first, "transition": self.transition, **self.classifier.tensors()}

    @classmethod
    def from_tensors(cls, settings: TransitionConfig, tensors: Tensors) -> Self:
        """See ``Estimator.from_tensors``."""
        restored = cls(settings)
        restored.first, restored.transition = np.asarray(tensors["first"]), np.asarray(tensors["transition"])
        restored.classifier = BandPowerLogistic.from_tensors(restored.classifier.config, tensors)
        return restored

    @property
    def n_parameters(self) -> int:
        """Of the classifier and of the chain."""
        present = int(np.count_nonzero(self.first))
        return self.classifier.n_parameters + present * present + present


def build_transition(settings: TransitionConfig, *, seed: int = 0) -> Transition:
    """The unfitted baseline; ``fit`` takes the seed."""
    return Transition(settings)
