"""What the figures of the catalogue are drawn from, gathered in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rllc.analysis.calibrated import CalibrationMap
from rllc.analysis.comparisons import Partings
from rllc.analysis.findings import Curves, Findings
from rllc.analysis.measured import Measured
from rllc.analysis.token_shares import TokenShares
from rllc.figures.over_seeds import SeedRun
from rllc.figures.told import Told


@dataclass(frozen=True)
class Material:
    """All that figures are drawn from; None or empty is what a run does not have."""

    told: Told
    findings: Findings
    measured: Measured = field(default_factory=Measured)
    controls: Mapping[str, Curves] = field(default_factory=dict[str, Curves])  # by name of the control
    seeds: Mapping[str, SeedRun] = field(default_factory=dict[str, SeedRun])  # the main one first
    calibration: CalibrationMap | None = None
    shares: TokenShares | None = None

    @property
    def head_partings(self) -> Partings | None:
        """Of pairs of heads, on the training mixture or on what was compared first."""
        pairs = [found for found in self.findings.partings if not found.reference]
        return next((found for found in pairs if found.data == self.told.mixture), next(iter(pairs), None))

    @property
    def data_partings(self) -> dict[str, Partings]:
        """Of each head on a kind of data and on the mixture, by the kind of data."""
        return {found.data: found for found in self.findings.partings if found.reference}

    @property
    def against_reference(self) -> Curves | None:
        """Curves of heads held against a model of fewer layers."""
        return self.findings.curves.get(self.findings.circuit.data) if self.findings.circuit is not None else None
