"""The deployment bundle: what is in it, how it is packed, and how it is checked again.

Requirements kept here: a bundle appears whole or not at all; every byte of it is under a hash; nothing that was not
verified is in it; every figure says how it was found.
"""

from sekron_edge.bundle._check import BundleCheck, probes, verify_bundle
from sekron_edge.bundle._contents import read_manifest, rebuild
from sekron_edge.bundle._manifest import (
    MANIFEST_NAME,
    WEIGHTS_NAME,
    BudgetResult,
    Counts,
    Delivery,
    FileEntry,
    Manifest,
    PixelNormalization,
    Score,
)
from sekron_edge.bundle._pack import Golden, pack, require_replaceable, sign_bundle
from sekron_edge.bundle._promises import check_promises, delivery_evidence, findings, shares, trial_evidence
from sekron_edge.bundle._report import before_and_after, budget_rows, render_report
from sekron_edge.bundle._signature import Signature, signed

__all__ = [
    "MANIFEST_NAME",
    "WEIGHTS_NAME",
    "BudgetResult",
    "BundleCheck",
    "Counts",
    "Delivery",
    "FileEntry",
    "Golden",
    "Manifest",
    "PixelNormalization",
    "Score",
    "Signature",
    "before_and_after",
    "budget_rows",
    "check_promises",
    "delivery_evidence",
    "findings",
    "pack",
    "probes",
    "read_manifest",
    "rebuild",
    "render_report",
    "require_replaceable",
    "shares",
    "sign_bundle",
    "signed",
    "trial_evidence",
    "verify_bundle",
]
