"""Metrics, memorisation, curves, reports, and exact oracles to check the rest against."""

from sfumato.measure.features import Features, features_for
from sfumato.measure.grids import grid_image
from sfumato.measure.metrics import Kid, Manifold, frechet_distance, kid, manifold, nearest, precision_recall
from sfumato.measure.score import measure

__all__ = [
    "Features",
    "Kid",
    "Manifold",
    "features_for",
    "frechet_distance",
    "grid_image",
    "kid",
    "manifold",
    "measure",
    "nearest",
    "precision_recall",
]
