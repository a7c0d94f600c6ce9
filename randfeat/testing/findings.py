"""Findings of an audit: the law that was checked, the verdict, and the measured number."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "fail", "measured", "not applicable"]


@dataclass(frozen=True)
class Finding:
    """One check: its verdict, the measured number if there is one, and what the number means (or why there is none)."""

    check: str
    verdict: Verdict
    number: float | None
    meaning: str

    @classmethod
    def decided(cls, check: str, right: bool, number: float | None, meaning: str) -> "Finding":
        """A finding with the verdict "pass" if `right`, else "fail"."""
        return cls(check, "pass" if right else "fail", None if number is None else float(number), meaning)

    @classmethod
    def bounded(cls, check: str, number: float, limit: float, meaning: str) -> "Finding":
        """A finding that passes if `number <= limit`; NaN fails."""
        return cls.decided(check, bool(number <= limit), number, f"{meaning}, at most {limit:.2g}")

    @classmethod
    def measured(cls, check: str, number: float, meaning: str) -> "Finding":
        """A number reported without a verdict on it."""
        return cls(check, "measured", float(number), meaning)

    @classmethod
    def not_applicable(cls, check: str, reason: str) -> "Finding":
        """A check that does not apply to this function, with the reason."""
        return cls(check, "not applicable", None, reason)

    @classmethod
    def raised(cls, check: str, error: Exception) -> "Finding":
        """A failure: the function raised `error` instead of returning an output."""
        lines = str(error).strip().splitlines() or [""]
        return cls(check, "fail", None, f"raised {type(error).__name__}: {lines[0][:90]}")


@dataclass(frozen=True)
class AuditReport:
    """All findings about one attention function; `print(report)` shows them as a table.

    `report["causality"]` is one finding, `report.failed` lists those that failed, `report.passed` is True if none did.
    """

    subject: str
    findings: tuple[Finding, ...]

    def __getitem__(self, check: str) -> Finding:
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(f"no check named {check!r}; there are {', '.join(finding.check for finding in self.findings)}.")

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Findings with the verdict "fail"."""
        return tuple(finding for finding in self.findings if finding.verdict == "fail")

    @property
    def passed(self) -> bool:
        """True if no check failed."""
        return not self.failed

    def __str__(self) -> str:
        rows = [("check", "verdict", "number", "meaning")]
        for f in self.findings:
            rows.append((f.check, f.verdict.upper() if f.verdict == "fail" else f.verdict, shown(f.number), f.meaning))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        table = [
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
        ]
        count = Counter(finding.verdict for finding in self.findings)
        total = ", ".join(
            f"{count[verdict]} {verdict}"
            for verdict in ("pass", "fail", "measured", "not applicable")
            if count[verdict]
        )
        return "\n".join([f"audit of {self.subject}", *table, f"{len(self.findings)} checks: {total}"])


def shown(number: float | None) -> str:
    """A number with two significant digits; an empty string for None."""
    if number is None:
        return ""
    return f"{number:.2g}" if math.isfinite(number) else str(number)
