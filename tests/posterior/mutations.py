"""The mutation table: faults of the shipped source, by the test that must turn red (`test_mutations`)."""

from __future__ import annotations

Edit = tuple[str, str, str]  # module, text, text instead

SGLD, LM, RMS, NHT, MALA = "samplers.sgld", "samplers.leimkuhler_matthews", "samplers.rmsprop_sgld", "samplers.sgnht", "samplers.mala"
BASE, POTENTIAL = "samplers.base", "potential"
SGLD_ROOT, LM_ROOT = "alpha=math.sqrt(settings.step_size))", "alpha=math.sqrt(eps) / 2)"
SGLD_HALF, SGLD_WHOLE = "alpha=-settings.step_size / 2)", "alpha=-settings.step_size)"
LM_HALF, LM_WHOLE = "point.force, alpha=-eps / 2)", "point.force, alpha=-eps)"
PRIOR, SLOPE, SLOPE_31 = "displacement, alpha=s.localization)", "torch.add(s.nbeta * gradient", "torch.add((s.nbeta + 1) * gradient"
BASELINE, KEPT = "traces.baseline[:, None, :]", "np.arange(start + s.discarded, "
IN_FP32 = "(traces.losses.astype(np.float32) - traces.baseline[:, None].astype(np.float32)).astype(np.float64)"
UNREAD: Edit = ("result", "if not any(check.outcome.refused for check in checks):", "checks = []\n        if True:")
NANMEAN: Edit = ("estimate", "llc = values.mean(axis=(-2, -1))", "llc = np.nanmean(values, axis=(-2, -1))")

# by the test that must turn red: name of the fault, then its edits
TABLE: dict[str, list[tuple[str, *tuple[Edit, ...]]]] = {
    "test_stationary::test_sgld_reads_the_discretised_llc": [
        ("sgld: noise × 1.02", (SGLD, SGLD_ROOT, f"{SGLD_ROOT[:-1]} * 1.02)")),
        ("sgld: drift without the ½", (SGLD, SGLD_HALF, SGLD_WHOLE)),
        ("potential: localization omitted", (POTENTIAL, PRIOR, "displacement, alpha=0.0)")),
        ("potential: localization flipped", (POTENTIAL, PRIOR, "displacement, alpha=-s.localization)")),
        ("estimate: nβ 31 for 30 in the estimate alone", ("estimate", "traces.settings.nbeta * diff", "(traces.settings.nbeta + 1) * diff")),
    ],
    "test_stationary::test_sgld_at_small_steps": [("potential: nβ 31 for 30 in the force alone", (POTENTIAL, SLOPE, SLOPE_31))],
    "test_by_hand::test_records_and_steps_are_those_of_a_loop_by_hand": [
        ("chains: the gradient of another point", ("chains", "self._center + self._state.displacement)", "self._center - self._state.displacement)")),
        ("chains: one normal for all steps", ("chains", "following = self._noise.draw()", "following = self._draw")),
        ("sgld: stein's excess doubled", (SGLD, "settings.step_size / 4 * squared", "settings.step_size / 2 * squared")),
        ("rmsprop: V fed by the force", (RMS, "square, decay = point.gradient.square()", "square, decay = point.force.square()")),
        ("rmsprop: V starts at zero", (RMS, "torch.full_like(displacement, -1.0)", "torch.zeros_like(displacement)")),
        (
            "rmsprop: the stabilizer under the root",
            (RMS, "(settings.rmsprop_stabilizer + moment.sqrt())", "(settings.rmsprop_stabilizer + moment).sqrt()"),
        ),
        ("sgnht: the thermostat of the published form", (NHT, "(2 - state.friction) * squared(velocity)", "2 * squared(velocity)")),
        ("sgnht: a slower thermostat", (NHT, "settings.thermostat_diffusion**2", "settings.thermostat_diffusion**3")),
    ],
    "test_stationary::test_sgld_moments_of_every_coordinate": [("sgld: variance × 1.04", (SGLD, SGLD_ROOT, f"{SGLD_ROOT[:-1]} * 1.02)"))],
    "test_stationary::test_weight_decay_through_the_whole_room": [
        ("potential: weight decay around w*", (POTENTIAL, "force.add_(self.center + displacement", "force.add_(displacement")),
        ("potential: weight decay omitted", (POTENTIAL, "displacement, alpha=s.weight_decay)", "displacement, alpha=0.0)")),
    ],
    "test_stationary::test_leimkuhler_matthews_reads_the_exact_llc": [
        ("lm: noise × 1.02", (LM, LM_ROOT, f"{LM_ROOT[:-1]} * 1.02)")),
        ("lm: localization omitted", (POTENTIAL, PRIOR, "displacement, alpha=0.0)")),
        ("lm: nβ 31 for 30 in the force alone", (POTENTIAL, SLOPE, SLOPE_31)),
        ("lm: noise without averaging", (LM, "state.normal + normal", "2 * normal")),
        ("lm: the first normal kept for ever", (LM, "State(moved, normal)", "State(moved, state.normal)")),
    ],
    "test_stationary::test_leimkuhler_matthews_moments_of_every_coordinate": [
        ("lm: two fresh normals a step", (LM, "state.normal + normal", "torch.randn_like(normal) + normal")),
    ],
    "test_stationary::test_rmsprop_sgld_with_frozen_second_moment": [
        ("rmsprop: noise × 1.02", (RMS, "value=math.sqrt(settings.step_size))", "value=math.sqrt(settings.step_size) * 1.02)")),
        ("rmsprop: noise without its preconditioner", (RMS, "scale.sqrt(), draw.normal", "torch.ones_like(scale), draw.normal")),
        ("rmsprop: drift without its preconditioner", (RMS, "pull = scale * point.force", "pull = point.force")),
        ("rmsprop: drift without the ½", (RMS, SGLD_HALF, SGLD_WHOLE)),
    ],
    "test_stationary::test_sgnht_reads_its_discretised_llc": [
        ("sgnht: drift without the ½", (NHT, "point.force, alpha=-eps / 2)", "point.force, alpha=-eps)")),
        ("sgnht: no thermostat", (NHT, "* (heat - 1)", "* 0")),
        ("sgnht: the thermostat flipped", (NHT, "* (heat - 1)", "* (1 - heat)")),
    ],
    "test_stationary::test_mala_reads_the_exact_llc_at_large_steps": [
        ("mala: everything accepted", (MALA, "(torch.log(draw.uniform) < ratio)", "(ratio == ratio)")),
        ("mala: the ratio inverted", (MALA, "(torch.log(draw.uniform) < ratio)", "(torch.log(draw.uniform) < -ratio)")),
        ("mala: proposal noise × 1.1", (MALA, SGLD_ROOT, f"{SGLD_ROOT[:-1]} * 1.1)")),
        (
            "mala: the rejected points drawn",
            (MALA, "Step(State(proposal, kept, draw.normal), kept,", "Step(State(proposal, kept, draw.normal), point,"),
        ),
        ("mala: potential without localization", (POTENTIAL, "s.localization / 2 * squared", "0 * squared")),
    ],
    "test_by_hand::test_the_metropolis_ratio_is_that_of_the_densities": [
        ("base: ε/4 for ε/8", (BASE, "eps / 8 * squared(forces)", "eps / 4 * squared(forces)")),
        ("base: without the cross term", (BASE, "math.sqrt(eps) / 2 * dot(forces, normal)", "0 * dot(forces, normal)")),
        ("potential: weight decay without w*", (POTENTIAL, "dot(self.center, displacement) + ", "")),
        ("chains: the ratio with the normal of the next step", ("chains", "point.pull, self._draw.normal", "point.pull, self._noise.draw().normal")),
    ],
    "test_stationary::test_leimkuhler_matthews_turns_its_noise_at_a_wall": [
        ("lm: noise not turned at a wall", (LM, "normal = normal * sign", "pass")),
        (
            "base: clamped at the walls",
            (BASE, "return torch.where(turned, 4 * box - period, period) - box,", "return displacement.clamp(-box, box),"),
        ),
    ],
    "test_stationary::test_sgld_relaxes_from_w_star": [
        ("sgld: drift without the ½, on the way", (SGLD, SGLD_HALF, SGLD_WHOLE)),
        ("traces: w* among the draws", ("traces", KEPT, "np.arange(start + s.discarded - 1, ")),
    ],
    "test_stationary::test_leimkuhler_matthews_relaxes_from_w_star": [("lm: drift without the ½", (LM, LM_HALF, LM_WHOLE))],
    "test_stationary::test_burn_in_is_left_out": [("traces: no burn-in", ("traces", KEPT, "np.arange(start + 1, "))],
    "test_stationary::test_no_sampler_changes_its_arguments": [
        ("sgld: a step changes its argument", (SGLD, "torch.add(state.displacement, point.force", "state.displacement.add_(point.force")),
        ("lm: a step changes its argument", (LM, "state.normal + normal", "normal.add_(state.normal)")),
        ("sgnht: a step changes its argument", (NHT, "velocity = (1 - state.friction)[:, None] * state.velocity", "velocity = state.velocity")),
    ],
    "test_prolonging::test_the_control_variate_removes_the_noise_of_the_gradient": [
        ("chains: control variate flipped", ("chains", "gradient = gradient + difference", "gradient = gradient - difference")),
        ("chains: control variate left out", ("chains", "if self._control is not None:", "if False:")),
    ],
    "test_estimate::test_pairing_removes_the_noise_of_the_batch": [
        ("estimate: the baseline of another minibatch", ("estimate", BASELINE, "traces.baseline[:, None, ::-1]")),
        ("estimate: one baseline for all draws", ("estimate", BASELINE, "traces.baseline[:, None, :1]")),
    ],
    "test_estimate::test_differences_are_taken_in_fp64": [("estimate: in fp32", ("estimate", f"traces.losses - {BASELINE}", IN_FP32))],
    "test_estimate::test_the_unpaired_estimate_is_that_of_peers": [
        ("estimate: parity one draw late", ("estimate", "traces.losses[..., traces.kept - 1]", "traces.losses[..., traces.kept]")),
    ],
    "test_estimate::test_the_paired_estimate_keeps_draws_after_burn_in_and_subtracts_the_same_minibatch": [
        ("error: without nβ", ("estimate", "stderr, df = standard_error(values)", "stderr, df = standard_error(values / settings.nbeta)")),
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
        ("verdicts: one failed chain of several does not matter", ("verdicts", "if (first >= 0).any():", "if (first >= 0).all():")),
        ("result: a refused cell keeps its number", ("result", "None if outcome.refused else estimates[p]", "estimates[p]")),
        ("result: nanmean over a failed chain", UNREAD, NANMEAN),
    ],
    "test_chains::test_a_chain_that_was_not_finite_in_burn_in_or_once_only_refuses_its_cell_too": [
        ("traces: only the last draw must be finite", ("traces", "fine.all(axis=-1)", "fine[..., -1]")),
    ],
    "test_chains::test_float64_stays_and_half_precision_is_sampled_in_fp32": [
        ("flat: the state in half precision", ("flat", "dtype = torch.float32", "dtype = torch.bfloat16")),
    ],
    "test_result::test_a_direction_that_bounces_where_the_loss_saturates_refuses_the_cell": [
        ("verdicts: stiffness unread", ("verdicts", 'check("stiffness", d.stiffness,', 'check("stiffness", 0.0,')),
    ],
    "test_result::test_a_chain_far_from_home_refuses_the_cell": [
        ("verdicts: distance unread", ("verdicts", 'check("distance_share", d.distance_share,', 'check("distance_share", 0.0,')),
    ],
    "test_result::test_a_chain_on_a_plateau_refuses_the_cell_where_it_costs_more_than_equipartition": [
        ("verdicts: excess unread", ("verdicts", "            d.excess_share,\n", "            0.0,\n")),
    ],
    "test_result::test_each_diagnostic_has_a_verdict_and_a_remedy": [
        ("verdicts: a series that falls is merely drifting", ("verdicts", "if d.drift < 0:", "if False:")),
        ("verdicts: R-hat by its fixed limit alone", ("verdicts", "math.sqrt(1 + 2 * limits.rhat_chi2 / d.ess)", "0.0")),
        ("verdicts: Stein's shortfall without its error", ("verdicts", "limits.stein_errors * d.stein_stderr", "0.0")),
    ],
    "test_flat_and_noise::test_a_variant_s_stream_depends_on_its_seed_alone": [
        (
            "noise: one stream for all",
            (
                "noise",
                "self._normal = [torch.Generator(device=device).manual_seed(seed)",
                "self._normal = [torch.Generator(device=device).manual_seed(0)",
            ),
        ),
        ("noise: one uniform for all", ("noise", 'seeding.derive(seed, "uniform")', 'seeding.derive(0, "uniform")')),
    ],
    "test_origin::test_the_estimate_is_unbiased_and_its_error_is_not_too_small": [
        ("origin: the norm of the mean gradient", ("origin", "gram.sum(axis=-1) - np.diagonal(gram, axis1=1, axis2=2)", "gram.sum(axis=-1)")),
        ("origin: jackknife without its n - 1", ("origin", "np.sqrt((n - 1) / n * ", "np.sqrt(1 / n * ")),
    ],
    "test_origin::test_power_iteration_finds_the_steepest_direction": [
        ("origin: the curvature not divided by its step", ("origin", "bent = (there - here) / length", "bent = there - here")),
        ("origin: the first guess for ever", ("origin", "direction = torch.where(norm > 0,", "direction = torch.where(norm < 0,")),
    ],
    "test_curvature::test_the_twin_is_the_formula": [
        ("curvature: one-sided", ("curvature", "(2 * reach)", "reach")),
        ("exact: the twin without its ½", ("exact", "(pull / (pull + settings.precision)).sum() / 2", "(pull / (pull + settings.precision)).sum()")),
    ],
    "test_sampling::test_chains_go_on_until_every_part_has_its_error": [
        ("settings: a relative target taken as absolute", ("settings", "(abs(llc) if self.relative else 1.0)", "1.0")),
        ("sampling: the cap unread", ("sampling", "or done >= stopping.max_draws ", "")),
    ],
    "test_diagnostics::test_stein_under_minibatch_noise_sgld": [
        ("stein: twice the correction", ("equilibrium", "1 + added.mean(axis=(-2, -1))", "1 + 2 * added.mean(axis=(-2, -1))")),
    ],
    "test_diagnostics::test_stein_under_minibatch_noise_leimkuhler_matthews": [
        ("stein: without the trace of the Hessian", (LM, "+ 2 * settings.nbeta / math.sqrt(eps) * dot(state.normal, point.gradient)", "")),
    ],
    "test_diagnostics::test_drift_is_last_third_minus_first": [
        ("drift: without its error", ("convergence", "t_quantile(df, confidence) * stderr", "0 * stderr")),
    ],
    "test_difference::test_what_the_cells_share_cancels_before_the_error_is_taken": [
        ("difference: the error of one cell alone", ("difference", "return _error(x_a - x_b)", "return _error(x_a)")),
        ("difference: always as if independent", ("difference", "_aligned_error(x_a, x_b, shared_noise) if aligned else ", "")),
    ],
    "test_difference::test_the_direction_is_a_minus_b": [
        ("difference: without its sign", ("difference", "value = llc_a - llc_b", "value = abs(llc_a - llc_b)")),
    ],
    "test_difference::test_without_shared_noise_the_chains_are_not_paired": [
        ("difference: chains paired that share nothing", ("difference", "if shared_noise or chains == 1:", "if True:")),
    ],
    "test_difference::test_without_shared_noise_equal_spreads_have_the_degrees_of_freedom_of_both": [
        ("difference: three degrees of freedom for six", ("difference", "_welch(spread_a, chains - 1, spread_b, chains - 1)", "chains - 1")),
    ],
    "test_difference::test_without_shared_noise_the_batches_still_are_paired": [
        ("difference: batches of one cell alone", ("difference", "_error((x_a - x_b).mean(", "_error(x_a.mean(")),
    ],
    "test_difference::test_a_prolonged_cell_is_compared_by_the_draws_in_common": [
        ("difference: the last draws for the leading ones", ("difference", "x_a[:, :common], x_b[:, :common]", "x_a[:, -common:], x_b[:, -common:]")),
    ],
    "test_difference::test_chains_that_started_again_have_in_common_what_both_did_before": [
        ("difference: draws counted, not placed", ("difference", "a.kept[:n] == b.kept[:n]", "a.kept[:n] > 0")),
        (
            "difference: places that meet again",
            ("difference", "np.logical_and.accumulate(a.kept[:n] == b.kept[:n])", "(a.kept[:n] == b.kept[:n])"),
        ),
    ],
    "test_difference::test_independent_errors_of_equal_size_have_the_degrees_of_freedom_of_both": [
        ("difference: other settings aligned", ("difference", "replace(a.settings, draws=b.settings.draws) != b.settings or ", "")),
        ("difference: the smaller degrees of freedom", ("difference", "return least if spread == 0 else ", "return least or ")),
    ],
    "test_difference::test_p_is_two_sided_and_student_s": [
        ("p: one-sided", ("difference", "return 2 * float(stdtr(", "return float(stdtr(")),
        ("p: normal for Student", ("difference", "stdtr(df, ", "stdtr(1e9, ")),
    ],
    "test_difference::test_holm_by_hand": [
        ("holm: Bonferroni", ("difference", "np.arange(len(p), 0, -1)", "len(p)")),
        ("holm: not monotone", ("difference", "np.maximum.accumulate(", "np.asarray(")),
        ("holm: in the order of p", ("difference", "adjusted[order] = ", "adjusted[:] = ")),
    ],
    "test_difference::test_joint_intervals_by_hand": [("joint: each for itself", ("difference", "(1 - confidence) / m", "(1 - confidence)"))],
}
