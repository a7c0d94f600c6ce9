"""The contract of estimators, couplings and attention functions, as checks that anybody can run on their own.

`check_estimator` and `check_coupling` raise an AssertionError; `audit_attention` reports what it finds.

Every statistical check is a z-score against a closed form, with the standard error taken from theory where theory has
it (heavy tails make sample errors too small), a Bonferroni limit from the stated false-alarm rate, and a number of
draws chosen so that a stated deviation is caught with probability 0.999.

>>> import randfeat as rf
>>> report = check_estimator(rf.PositiveFeatures(coupling="orthogonal"), dim=3, rng=0)
>>> report.worst < report.limit
True
"""

from randfeat.testing.attention import audit_attention
from randfeat.testing.couplings import check_coupling
from randfeat.testing.estimators import check_estimator, check_namespace
from randfeat.testing.findings import AuditReport, Finding
from randfeat.testing.report import Check, Report

__all__ = [
    "AuditReport",
    "Check",
    "Finding",
    "Report",
    "audit_attention",
    "check_coupling",
    "check_estimator",
    "check_namespace",
]
