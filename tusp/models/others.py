"""The networks that TinyUStaging is compared with, as families. Each is built as it was published."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from tusp.models.configs import (
    RECIPE_CHANGES,
    Chambon2018Config,
    DeepSleepNetConfig,
    TinySleepNetConfig,
    USleepConfig,
)
from tusp.models.families import Family


def _builder(module: str, function: str) -> Callable[..., Any]:
    """A function that loads the module, and torch with it, when it is first called."""

    def build(settings: Any, *, seed: int = 0) -> Any:
        return getattr(import_module(module), function)(settings, seed=seed)

    return build


USLEEP = Family(
    name="usleep",
    title="U-Sleep",
    citation="Perslev M, Darkner S, Kempfner L, Nikolic M, Jennum PJ, Igel C. U-Sleep: resilient high-frequency sleep "
    "staging. npj Digital Medicine 2021;4:72",
    licence="MIT",
    settings=USleepConfig,
    build=_builder("tusp.models.usleep", "build_usleep"),
    recipe=RECIPE_CHANGES["usleep"],
)
DEEPSLEEPNET = Family(
    name="deepsleepnet",
    title="DeepSleepNet",
    citation="Supratak A, Dong H, Wu C, Guo Y. DeepSleepNet: a model for automatic sleep stage scoring based on raw "
    "single-channel EEG. IEEE Trans Neural Syst Rehabil Eng 2017;25:1998-2008",
    licence="Apache-2.0",
    settings=DeepSleepNetConfig,
    build=_builder("tusp.models.deepsleepnet", "build_deepsleepnet"),
    recipe=RECIPE_CHANGES["deepsleepnet"],
)
TINYSLEEPNET = Family(
    name="tinysleepnet",
    title="TinySleepNet",
    citation="Supratak A, Guo Y. TinySleepNet: an efficient deep learning model for sleep stage scoring based on raw "
    "single-channel EEG. EMBC 2020:641-644",
    licence="Apache-2.0",
    settings=TinySleepNetConfig,
    build=_builder("tusp.models.tinysleepnet", "build_tinysleepnet"),
    recipe=RECIPE_CHANGES["tinysleepnet"],
)
CHAMBON2018 = Family(
    name="chambon2018",
    title="Chambon et al. 2018",
    citation="Chambon S, Galtier MN, Arnal PJ, Wainrib G, Gramfort A. A deep learning architecture for temporal sleep "
    "stage classification using multivariate and multimodal time series. IEEE Trans Neural Syst Rehabil Eng "
    "2018;26:758-769",
    licence="BSD-3-Clause (braindecode)",
    settings=Chambon2018Config,
    build=_builder("tusp.models.chambon2018", "build_chambon2018"),
    recipe=RECIPE_CHANGES["chambon2018"],
)
