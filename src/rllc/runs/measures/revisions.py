"""The revision of every kind of measurement: raise it with every change that moves a number, so that old records are not mistaken for new ones.

Torch-free, so that `rllc plan` and `rllc status` know it.
"""

from __future__ import annotations

from collections.abc import Mapping

from rllc.behaviour.settings import MeasureName

REVISIONS: Mapping[MeasureName, str] = {
    "behaviour": "behaviour-3",
    "composition": "composition-1",
    "ablation": "ablation-2",
    "ngrams": "ngrams-2",
    "tokens": "tokens-2",
    "paths": "paths-2",
    "tables": "tables-2",
    "memorised": "memorised-2",
    "baselines": "baselines-2",
}
