"""Choosing features for given data: fit, rank, predict errors, diagnose denominators, list what exists."""

from randfeat.selection.adaptation import adapt
from randfeat.selection.diagnostics import AttentionDiagnostics, attention_diagnostics
from randfeat.selection.entries import Entry, catalogue
from randfeat.selection.forecast import AttentionForecast
from randfeat.selection.operators import OperatorCandidate
from randfeat.selection.planning import num_features_for
from randfeat.selection.prediction import predict_attention_error
from randfeat.selection.recommendation import Candidate, Recommendation, recommend

__all__ = [
    "AttentionDiagnostics",
    "AttentionForecast",
    "Candidate",
    "Entry",
    "OperatorCandidate",
    "Recommendation",
    "adapt",
    "attention_diagnostics",
    "catalogue",
    "num_features_for",
    "predict_attention_error",
    "recommend",
]
