"""Metrics, memorisation, curves, reports, and exact oracles to check the rest against."""

from sfumato.measure.features import Features, features_for
from sfumato.measure.grids import grid_image
from sfumato.measure.metrics import Kid, Manifold, frechet_distance, kid, manifold, nearest, precision_recall
from sfumato.measure.report import Neighbours, Report, Strip, write_report
from sfumato.measure.score import measure
from sfumato.measure.words import verdict

__all__ = [
    "Features",
    "Kid",
    "Manifold",
    "Neighbours",
    "Report",
    "Strip",
    "features_for",
    "frechet_distance",
    "grid_image",
    "kid",
    "manifold",
    "measure",
    "nearest",
    "precision_recall",
    "verdict",
    "write_report",
]
