"""The classical baselines as families."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from tusp.models.baselines.settings import BandPowerConfig, BoostingConfig, MajorityConfig, TransitionConfig
from tusp.models.families import Family


def _builder(module: str, function: str) -> Callable[..., Any]:
    """A function that loads the module, and scipy with it, when it is first called."""

    def build(settings: Any, *, seed: int = 0) -> Any:
        return getattr(import_module(f"tusp.models.baselines.{module}"), function)(settings, seed=seed)

    return build


MAJORITY = Family(
    name="majority",
    title="Commonest stage",
    citation="no publication: the share of each stage in the training nights, for every epoch",
    licence="none needed",
    settings=MajorityConfig,
    build=_builder("majority", "build_majority"),
    kind="estimator",
)
BAND_POWER = Family(
    name="band-power",
    title="Band powers, logistic regression",
    citation="Pedregosa F et al. Scikit-learn: machine learning in Python. JMLR 2011;12:2825-2830",
    licence="BSD-3-Clause (scikit-learn)",
    settings=BandPowerConfig,
    build=_builder("band_power", "build_band_power_logistic"),
    kind="estimator",
)
BAND_POWER_BOOSTING = Family(
    name="band-power-boosting",
    title="Band powers, gradient boosting",
    citation="Pedregosa F et al. Scikit-learn: machine learning in Python. JMLR 2011;12:2825-2830; Ke G et al. "
    "LightGBM: a highly efficient gradient boosting decision tree. NeurIPS 2017",
    licence="BSD-3-Clause (scikit-learn)",
    settings=BoostingConfig,
    build=_builder("band_power", "build_band_power_boosting"),
    kind="estimator",
)
TRANSITION = Family(
    name="transition",
    title="Band powers and stage transitions",
    citation="Rabiner LR. A tutorial on hidden Markov models and selected applications in speech recognition. "
    "Proc IEEE 1989;77:257-286",
    licence="BSD-3-Clause (scikit-learn)",
    settings=TransitionConfig,
    build=_builder("transition", "build_transition"),
    kind="estimator",
)
