"""The contract of estimators, couplings and attention functions, as checks to run on your own ones.

`check_estimator` and `check_coupling` raise an AssertionError; `audit_attention` reports what it finds.

Every statistical check is a z-score against a closed form. Its standard error comes from theory wherever that is known,
because heavy tails make sample errors too small. Its limit is a Bonferroni limit from the stated false-alarm rate. The
number of draws is chosen so that a stated deviation is caught with probability 0.999.

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
