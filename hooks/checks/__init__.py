"""Checks of a model, its data, its loss and its optimizer before the training: minutes that save hours.

`check` runs all of them on a copy, `report.Report` holds what they found, and `python -m trainvitals.hooks.checks`
is what `trainvitals preflight` starts.
"""

from trainvitals.hooks.checks.checking import check
from trainvitals.hooks.checks.report import PreflightError, Report

__all__ = ["PreflightError", "Report", "check"]
