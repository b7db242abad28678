"""Simulated nights in the corpora's original formats: the adapters' test bed and the demonstration's data."""

from tusp.datasets.simulation.embedded import ensure_embedded
from tusp.datasets.simulation.generation import night_count, simulate
from tusp.datasets.simulation.plan import SIMULATED_FLAG

__all__ = ["SIMULATED_FLAG", "ensure_embedded", "night_count", "simulate"]
