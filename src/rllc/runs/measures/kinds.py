"""What `rllc plan` and `rllc status` know of every kind of measurement: its revision, and which models lack it. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping

from rllc.behaviour.settings import MeasureName
from rllc.model.shape import ModelShape

# Raise one with every change that moves a number, so that old records are not mistaken for new ones.
REVISIONS: Mapping[MeasureName, str] = {
    "behaviour": "behaviour-3",
    "composition": "composition-2",
    "ablation": "ablation-2",
    "ngrams": "ngrams-2",
    "tokens": "tokens-3",
    "paths": "paths-2",
    "tables": "tables-2",
    "memorised": "memorised-2",
    "baselines": "baselines-4",
}


def lacking(kind: MeasureName, shape: ModelShape) -> str:
    """Why a model cannot be measured so, as a sentence; empty where it can."""
    if kind == "composition" and shape.n_layers == 1:
        return "Heads compose across layers, and the model has one."
    if kind == "paths" and shape.norms_behind:
        return "What its heads write passes a norm together, so that no path is one head's."
    if kind == "paths" and shape.qk_norm and shape.qk_norm_over == "layer":
        return "Its queries and keys are normed over all heads of a layer, so that no path leads into one of them alone."
    if kind == "tables" and shape.norms_behind:
        return "What its heads write passes a norm together, so that no table is one head's."
    return ""
