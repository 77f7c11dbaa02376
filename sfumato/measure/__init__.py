"""Metrics, memorisation, curves, reports, and exact oracles to check the rest against."""

from sfumato.measure.faithful import faithfulness
from sfumato.measure.features import Features, features_for
from sfumato.measure.grids import grid_image
from sfumato.measure.inception import inception
from sfumato.measure.intervals import Interval, frechet_interval, kid_interval, manifold_intervals, mean_interval
from sfumato.measure.judge import Judge, judge_for
from sfumato.measure.metrics import Kid, Manifold, frechet_distance, kid, manifold, nearest, precision_recall
from sfumato.measure.report import Neighbours, Report, Strip, write_report
from sfumato.measure.score import Classes, Extractor, measure, metric_name
from sfumato.measure.words import verdict

__all__ = [
    "Classes",
    "Extractor",
    "Features",
    "Interval",
    "Judge",
    "Kid",
    "Manifold",
    "Neighbours",
    "Report",
    "Strip",
    "faithfulness",
    "features_for",
    "frechet_distance",
    "frechet_interval",
    "grid_image",
    "inception",
    "judge_for",
    "kid",
    "kid_interval",
    "manifold",
    "manifold_intervals",
    "mean_interval",
    "measure",
    "metric_name",
    "nearest",
    "precision_recall",
    "verdict",
    "write_report",
]
