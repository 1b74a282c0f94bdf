"""What the figures of the catalogue are drawn from, gathered in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rllc.analysis.across_seeds import SeedMatch
from rllc.analysis.calibrated import CalibrationMap
from rllc.analysis.findings import Curves, Findings
from rllc.analysis.measured import Measured
from rllc.analysis.ordering import Ordering
from rllc.analysis.parting import Partings
from rllc.analysis.regression import Regression
from rllc.figures.over_seeds import SeedRun
from rllc.figures.painting import TokenShares
from rllc.figures.told import Told


@dataclass(frozen=True)
class Material:
    """All that figures are drawn from; None or empty is what a run does not have."""

    told: Told
    findings: Findings
    measured: Measured = field(default_factory=Measured)
    data_partings: Mapping[str, Partings] = field(default_factory=dict[str, Partings])  # by kind of data, against the mixture
    head_partings: Partings | None = None
    regression: Regression | None = None  # of final wrLLC on memorised multigrams
    orderings: tuple[Ordering, ...] = ()
    against_reference: Curves | None = None  # of heads, the targets a one-layer model's predictions
    controls: Mapping[str, Curves] = field(default_factory=dict[str, Curves])  # by name of the control
    seeds: Mapping[str, SeedRun] = field(default_factory=dict[str, SeedRun])  # the main one first
    matches: tuple[SeedMatch, ...] = ()
    calibration: CalibrationMap | None = None
    shares: TokenShares | None = None
