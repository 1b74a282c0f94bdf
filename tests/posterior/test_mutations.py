"""Every test can fail (ANCHORS, principle 9): each mutation of the shipped source turns a named test red.

A mutation replaces text that occurs exactly once in one module. The whole room is then imported afresh around the mutated module,
the test file too, and the named test must fail by an assertion. Unmutated, in the same harness, it must pass.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import rllc

ROOM = "rllc.posterior"
SOURCE = Path(rllc.__file__).parent / "posterior"

Edit = tuple[str, str, str]  # module, text, text instead


@dataclass(frozen=True)
class Mutation:
    """One fault, and the test that must see it."""

    name: str
    test: str  # file::function
    edits: tuple[Edit, ...]

    def sources(self) -> dict[str, str]:
        """The mutated modules by name."""
        found: dict[str, str] = {}
        for module, old, new in self.edits:
            text = (SOURCE / f"{module}.py").read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{self.name}: {old!r} occurs {text.count(old)} times in {module}.py"
            found[module] = text.replace(old, new)
        return found


SGLD, LM = "sgld", "leimkuhler_matthews"
SGLD_ROOT, LM_ROOT = "alpha=math.sqrt(settings.step_size))", "alpha=math.sqrt(settings.step_size) / 2)"
HALF, WHOLE = "alpha=-settings.step_size / 2)", "alpha=-settings.step_size)"
PRIOR, SLOPE, SLOPE_31 = "alpha=settings.localization)", "settings.nbeta * gradient", "(settings.nbeta + 1) * gradient"
BASELINE, KEPT = "traces.baseline[:, None, :]", "slice(self.settings.burn_in + 1, None)"
IN_FP32 = "(traces.losses.astype(np.float32) - traces.baseline[:, None].astype(np.float32)).astype(np.float64)"
V = "        v = state.displacement\n"
AFTER = "        evaluation = objective.evaluate(layout.views(center + sampler.step(state, gradient, latest, settings).displacement), context)\n"
UNREAD: Edit = ("result", "_refusals(traces, p, diagnostics[p], verdicts) or ", "")

# by the test that must turn red: name of the fault, then its edits
TABLE: dict[str, list[tuple[str, *tuple[Edit, ...]]]] = {
    "test_stationary::test_sgld_reads_the_discretised_llc": [
        ("sgld: noise × 1.02", (SGLD, SGLD_ROOT, f"{SGLD_ROOT[:-1]} * 1.02)")),
        ("sgld: drift without the ½", (SGLD, HALF, WHOLE)),
        ("sgld: localization omitted", (SGLD, PRIOR, "alpha=0.0)")),
        ("sgld: localization flipped", (SGLD, PRIOR, "alpha=-settings.localization)")),
        ("estimate: nβ 31 for 30 in the estimate alone", ("estimate", "traces.settings.nbeta * diff", "(traces.settings.nbeta + 1) * diff")),
    ],
    "test_stationary::test_sgld_at_small_steps": [("sgld: nβ 31 for 30 in the sampler alone", (SGLD, SLOPE, SLOPE_31))],
    "test_chains::test_records_and_steps_are_those_of_a_loop_by_hand": [
        ("chains: the loss after the step", ("chains", V, V + AFTER)),
        ("chains: the gradient of another point", ("chains", "center + state.displacement", "center - state.displacement")),
        ("chains: one normal for all steps", ("chains", "            latest = noise.draw()\n            state", "            state")),
    ],
    "test_stationary::test_sgld_moments_of_every_coordinate": [("sgld: variance × 1.04", (SGLD, SGLD_ROOT, f"{SGLD_ROOT[:-1]} * 1.02)"))],
    "test_stationary::test_leimkuhler_matthews_reads_the_exact_llc": [
        ("lm: noise × 1.02", (LM, LM_ROOT, f"{LM_ROOT[:-1]} * 1.02)")),
        ("lm: localization omitted", (LM, PRIOR, "alpha=0.0)")),
        ("lm: localization flipped", (LM, PRIOR, "alpha=-settings.localization)")),
        ("lm: nβ 31 for 30 in the sampler alone", (LM, SLOPE, SLOPE_31)),
        ("lm: noise without averaging", (LM, "state.noise + noise", "2 * noise")),
        ("lm: the first normal kept for ever", (LM, "/ 2), noise)", "/ 2), state.noise)")),
    ],
    "test_stationary::test_leimkuhler_matthews_moments_of_every_coordinate": [
        ("lm: two fresh normals a step", (LM, "state.noise + noise", "torch.randn_like(noise) + noise")),
    ],
    "test_stationary::test_sgld_relaxes_from_w_star": [
        ("sgld: drift without the ½, on the way", (SGLD, HALF, WHOLE)),
        ("traces: w* among the draws", ("traces", KEPT, "slice(self.settings.burn_in, None)")),
    ],
    "test_stationary::test_leimkuhler_matthews_relaxes_from_w_star": [("lm: drift without the ½", (LM, HALF, WHOLE))],
    "test_stationary::test_burn_in_is_left_out": [("traces: no burn-in", ("traces", KEPT, "slice(1, None)"))],
    "test_stationary::test_steps_are_pure": [
        ("sgld: a step changes its argument", (SGLD, "torch.add(state.displacement, drift", "state.displacement.add_(drift")),
        ("lm: a step changes its argument", (LM, "state.noise + noise", "noise.add_(state.noise)")),
    ],
    "test_estimate::test_pairing_removes_the_noise_of_the_batch": [
        ("estimate: the baseline of another minibatch", ("estimate", BASELINE, "traces.baseline[:, None, ::-1]")),
        ("estimate: one baseline for all draws", ("estimate", BASELINE, "traces.baseline[:, None, :1]")),
    ],
    "test_estimate::test_differences_are_taken_in_fp64": [("estimate: in fp32", ("estimate", f"traces.losses - {BASELINE}", IN_FP32))],
    "test_estimate::test_the_unpaired_estimate_is_that_of_peers": [
        ("estimate: parity one draw late", ("estimate", "traces.settings.burn_in : traces.settings.steps]", "traces.kept]")),
    ],
    "test_estimate::test_the_paired_estimate_keeps_draws_after_burn_in_and_subtracts_the_same_minibatch": [
        ("error: without nβ", ("estimate", "stderr, df = standard_error(series)", "stderr, df = standard_error(series / settings.nbeta)")),
    ],
    "test_estimate::test_spread_of_chains_by_hand": [("error: without the spread of chains", ("estimate", "chains > 1:", "chains > 99:"))],
    "test_estimate::test_batch_means_by_hand": [("error: without batch means", ("estimate", "np.maximum(stderr, spread)", "spread"))],
    "test_estimate::test_the_error_covers_with_shared_batch_noise": [
        ("error: without batch means, by coverage", ("estimate", "np.maximum(stderr, spread)", "spread")),
    ],
    "test_estimate::test_the_error_covers_for_a_single_chain": [
        ("error: as if draws were independent", ("estimate", "number = min(BATCH_MEANS, draws // 2)", "number = draws")),
    ],
    "test_estimate::test_the_interval_is_student_s": [("error: normal for Student", ("estimate", "stdtrit(df, ", "stdtrit(1e9, "))],
    "test_chains::test_a_chain_that_turns_nan_spoils_no_other_and_refuses_its_cell": [
        ("result: one failed chain of several does not matter", ("result", "if (first >= 0).any():", "if (first >= 0).all():")),
        ("result: a refused cell keeps its number", ("result", "None if outcome.refused else estimates[p]", "estimates[p]")),
        ("result: nanmean over a failed chain", UNREAD, ("estimate", "llc = series.mean(axis=(-2, -1))", "llc = np.nanmean(series, axis=(-2, -1))")),
    ],
    "test_chains::test_a_chain_that_was_not_finite_in_burn_in_or_once_only_refuses_its_cell_too": [
        ("traces: only the last draw must be finite", ("traces", "fine.all(axis=-1)", "fine[..., -1]")),
    ],
    "test_chains::test_float64_stays_and_half_precision_is_sampled_in_fp32": [
        ("flat: the state in half precision", ("flat", "dtype = torch.float32", "dtype = torch.bfloat16")),
    ],
    "test_result::test_a_direction_that_bounces_where_the_loss_saturates_refuses_the_cell": [
        ("result: stiffness unread", ("result", "if not d.stiffness < verdicts.stiffness:", "if False:")),
    ],
    "test_result::test_a_chain_far_from_home_refuses_the_cell": [
        ("result: distance unread", ("result", "if not d.distance_share < verdicts.distance:", "if False:")),
    ],
    "test_result::test_a_chain_on_a_plateau_refuses_the_cell_where_it_costs_more_than_equipartition": [
        ("result: excess unread", ("result", "if not d.excess_share < verdicts.excess:", "if False:")),
    ],
    "test_flat_and_noise::test_a_variant_s_stream_depends_on_its_seed_alone": [
        ("noise: one stream for all", ("noise", "manual_seed(seed)", "manual_seed(0)")),
        ("noise: streams by position", ("noise", "manual_seed(seed) for seed in seeds", "manual_seed(s + i) for i, s in enumerate(seeds)")),
    ],
    "test_origin::test_the_estimate_is_unbiased_and_its_error_is_not_too_small": [
        ("origin: the norm of the mean gradient", ("origin", "gram.sum(axis=-1) - np.diagonal(gram, axis1=1, axis2=2)", "gram.sum(axis=-1)")),
        ("origin: jackknife without its n - 1", ("origin", "np.sqrt((n - 1) / n * ", "np.sqrt(1 / n * ")),
    ],
    "test_diagnostics::test_stein_under_minibatch_noise_sgld": [
        ("stein: twice the correction", ("diagnostics", "1 + s.step_size / 4 * sq_drift", "1 + s.step_size / 2 * sq_drift")),
    ],
    "test_diagnostics::test_stein_under_minibatch_noise_leimkuhler_matthews": [
        ("stein: without the trace of the Hessian", ("diagnostics", "+ 2 * s.nbeta * noise / math.sqrt(s.step_size)", "")),
    ],
    "test_diagnostics::test_drift_is_last_third_minus_first": [
        ("drift: without its error", ("diagnostics", "t_quantile(df, confidence) * stderr", "0 * stderr")),
    ],
}
MUTATIONS = [Mutation(name, test, tuple(edits)) for test, faults in TABLE.items() for name, *edits in faults]


class Afresh(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the room's modules before anything else does, mutated or plain: without the shape checks, whose types outlive a module."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources, self.unused = sources, set(sources)

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname == ROOM:
            return importlib.util.spec_from_file_location(fullname, SOURCE / "__init__.py", submodule_search_locations=[str(SOURCE)])
        if not fullname.startswith(f"{ROOM}."):
            return None
        module = fullname.rpartition(".")[2]
        return importlib.util.spec_from_loader(fullname, self) if module in self.sources else _plain(fullname, module)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__.rpartition(".")[2]
        self.unused.discard(name)
        exec(compile(self.sources[name], f"<mutated {name}>", "exec"), module.__dict__)


def _plain(fullname: str, module: str) -> importlib.machinery.ModuleSpec | None:
    return importlib.util.spec_from_file_location(fullname, SOURCE / f"{module}.py")


@contextmanager
def afresh(mutation: Mutation | None) -> Iterator[None]:
    """The room imported anew, modules of it mutated; afterwards everything is as it was."""
    saved = {name: module for name, module in sys.modules.items() if name == ROOM or name.startswith(f"{ROOM}.")}
    finder = Afresh(mutation.sources() if mutation else {})
    for name in saved:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
        assert not finder.unused, f"the named test does not import {finder.unused}"
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name == ROOM or name.startswith(f"{ROOM}.")]:
            del sys.modules[name]
        sys.modules.update(saved)
        if ROOM in saved:
            rllc.posterior = saved[ROOM]  # type: ignore[attr-defined]


def run_named(test: str) -> None:
    """Import the test's file anew, against the room as it now is, and run it with fixed seeds."""
    file, function = test.split("::")
    spec = importlib.util.spec_from_file_location(f"afresh_{file}", Path(__file__).with_name(f"{file}.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        torch.manual_seed(0)
        getattr(module, function)()
    finally:
        del sys.modules[spec.name]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[m.name for m in MUTATIONS])
def test_the_named_test_sees_the_mutation(mutation: Mutation) -> None:
    with afresh(mutation), np.errstate(all="ignore"), pytest.raises(AssertionError):  # no crash will do: the test itself must object
        run_named(mutation.test)


@pytest.mark.parametrize("test", TABLE)
def test_unmutated_the_named_test_passes(test: str) -> None:
    with afresh(None):
        run_named(test)


def test_the_room_is_as_it_was() -> None:
    before = importlib.import_module(f"{ROOM}.sgld")
    with afresh(MUTATIONS[0]):
        mutated = importlib.import_module(f"{ROOM}.sgld")
        assert mutated is not before
    assert importlib.import_module(f"{ROOM}.sgld") is before
    assert sys.modules[ROOM] is rllc.posterior  # type: ignore[attr-defined]


def test_a_mutation_must_name_text_that_occurs_once() -> None:
    with pytest.raises(AssertionError, match=r"occurs 0 times in sgld\.py"):
        Mutation("none", "", ((SGLD, "no such text", ""),)).sources()
