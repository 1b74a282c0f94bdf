"""What `rllc plan` and `rllc status` say of measuring, against torch's own count of operations."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rllc.behaviour.settings import MEASURES
from rllc.checkpoints.store import list_checkpoints, load
from rllc.records.store import Store
from rllc.runs.experiment import Experiment, parse, preset
from rllc.runs.layout import RunFolder
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.cost import NOT_COUNTED, one_checkpoint, plan_measuring
from rllc.runs.measures.kinds import REVISIONS
from rllc.runs.measures.measure import Subject, find
from rllc.runs.overview import describe_plan, describe_status
from rllc.runs.pipeline import run_experiment

from .test_measures import SIBLING, text_of

SETTINGS = f"""
measures = {list(MEASURES)}
[behaviour.ablation]
contexts = 5
[behaviour.ngrams]
least = 3
probes = 30
[behaviour.tokens]
draws = 10
[behaviour.paths]
contexts = 3
[behaviour.tables]
contexts = 3
[behaviour.memorised]
contexts = 20
at = 2
[behaviour.baselines]
contexts = 2
top = 0
probes = 3
"""


@pytest.fixture(scope="module")
def opened(finished: Path) -> tuple[Experiment, Any, Any, Bench]:
    experiment = parse(text_of(finished, SETTINGS))
    shape, params, _ = load(list_checkpoints(finished / "checkpoints")[-1].folder)
    return experiment, shape, params, Bench.of(experiment, RunFolder(finished))


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "composition"])
def test_operations_are_those_that_torch_counts(opened: tuple[Experiment, Any, Any, Bench], name: Any) -> None:
    """Within a factor of two: torch counts attention whole, the plan the half that a causal kernel computes, and a backward pass by rule of thumb."""
    experiment, shape, params, bench = opened
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        find(name).take(Subject(shape, params, bench), bench)
    assert 0.5 < one_checkpoint(experiment, name) / counter.get_total_flops() < 2


def test_a_plan_says_what_is_measured_where_and_what_is_not_known(finished: Path) -> None:
    experiment = parse(text_of(finished, SETTINGS) + SIBLING)
    text = describe_plan(experiment, rate=1e9)
    (line,) = re.findall(r"\n  measuring   (.*)", text)
    assert line.startswith(
        "behaviour, composition, ablation, ngrams, tokens at 5 checkpoints; paths, tables, baselines at 1 checkpoint; memorised at 2"
    )
    found = plan_measuring(experiment)
    assert f"; {sum(found.cost.values()):.3g} operations, " in line
    assert line.endswith("on 1 workers; not counted: " + ", ".join(NOT_COUNTED.values()))
    assert found.seconds(1e9) == pytest.approx(sum(found.cost.values()) / 1e9)
    (beside,) = re.findall(r"\n  beside it   (.*)", text)
    assert "; measuring behaviour at 3 checkpoints; ablation, ngrams, tokens, memorised at 2 checkpoints; paths, tables, baselines at 1" in beside
    assert "composition" not in beside  # one layer has no pairs
    few = parse(text_of(finished, 'measures = ["behaviour"]\n'))
    assert "measuring   behaviour at 5 checkpoints; " in describe_plan(few)
    assert "not counted" not in describe_plan(few)
    assert "very roughly" in describe_plan(few).split("measuring")[1]


def test_more_to_look_at_costs_more(finished: Path) -> None:
    small = parse(text_of(finished, SETTINGS))
    for name in ("ablation", "paths", "memorised", "baselines"):
        table = SETTINGS[SETTINGS.index(f"[behaviour.{name}]") :]
        number = re.search(r"contexts = (\d+)", table)
        assert number is not None
        changed = SETTINGS.replace(table, table.replace(number[0], f"contexts = {10 * int(number[1])}", 1))
        large = parse(text_of(finished, changed))
        assert one_checkpoint(large, name) == pytest.approx(10 * one_checkpoint(small, name))
    # effects of the ablation that "ablation" measures anyway are not measured again
    assert one_checkpoint(small, "tokens", shared=True) < 0.8 * one_checkpoint(small, "tokens")
    alone = parse(text_of(finished, SETTINGS.replace("'ablation', ", "")))
    assert plan_measuring(alone).cost["tokens"] > plan_measuring(small).cost["tokens"]


def test_the_demos_plan_has_what_it_measures_and_no_more() -> None:
    demo = parse(preset("demo"))
    assert tuple(plan_measuring(demo).steps) == demo.behaviour.asked()
    assert plan_measuring(demo).steps["behaviour"] == len(demo.checkpoints())
    assert set(REVISIONS) == set(MEASURES)


def test_status_tells_how_long_the_rest_may_take(finished: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished, folder.root)
    text = text_of(finished, 'measures = ["composition", "tables"]\n[behaviour.tables]\nat = "all"\ncontexts = 3\n')
    run_experiment(text, folder.root, "measure", None, None, quiet=True)
    for path in sorted((folder.records / "tables").rglob("*.npz"))[:2]:
        path.unlink()
    records = list(Store(folder.records).records("tables"))
    assert len(records) == 3
    expected = 2 * sorted(record.meta["seconds"] for record in records)[1]
    assert expected < 30
    assert re.search(r"measure  not finished: tables 3 of 5 checkpoints; \S+ s left at the pace until now", describe_status(folder.root))
    shutil.rmtree(folder.records / "composition")
    assert "composition 0 of 5, tables 3 of 5 checkpoints; " in (told := describe_status(folder.root))
    assert "left very roughly, as composition had no checkpoint yet" in told
