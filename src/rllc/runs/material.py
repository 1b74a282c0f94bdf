"""What the figures of a run are drawn from: findings, measurements, controls, seeds, shares of tokens, a calibration."""

from __future__ import annotations

from collections.abc import Mapping

from rllc.analysis.analyse import MAIN
from rllc.analysis.calibrated import CalibrationMap
from rllc.analysis.curves import at, select
from rllc.analysis.findings import Curves, Findings
from rllc.analysis.stored import map_from_json
from rllc.analysis.token_shares import TokenShares
from rllc.analysis.types import head_types
from rllc.behaviour.settings import BehaviourSettings
from rllc.core.errors import RllcError
from rllc.core.files import read_regular
from rllc.core.names import Part
from rllc.figures.material import Material
from rllc.figures.over_seeds import SeedRun
from rllc.figures.told import Told, listed, plural
from rllc.model.slices import size
from rllc.records.store import DamagedRecordError, Store
from rllc.runs.evidence import planted_share, seeds_of, sibling_of
from rllc.runs.experiment import MIXTURE, Experiment
from rllc.runs.layout import MAP, RunFolder
from rllc.runs.reading import read_measured
from rllc.runs.token_shares import token_shares

SAMPLERS = {"sgld": "SGLD", "psgld": "preconditioned SGLD", "rmsprop-sgld": "RMSprop-SGLD", "sgnht": "SGNHT", "mala": "MALA"}


def material_of(experiment: Experiment, folder: RunFolder, store: Store, findings: Findings) -> Material:
    """Everything that the catalogue of figures can draw of a run. Raises RllcError where a record is damaged."""
    return Material(
        told=told_of(experiment, folder),
        findings=findings,
        measured=read_measured(experiment, folder, store),
        controls=controls_of(experiment, findings),
        seeds=_seeds(experiment, folder, findings),
        calibration=_calibration(folder),
        shares=_shares(experiment, folder),
    )


def told_of(experiment: Experiment, folder: RunFolder) -> Told:
    """What captions state."""
    shape, sampler = experiment.model, experiment.sampler
    heads = plural(shape.n_heads, "head")
    return Told(
        model=f"{plural(shape.n_layers, 'layer')} of {heads}, {size(shape, Part.parse('full')):,} parameters",
        sampler=SAMPLERS.get(sampler.sampler, sampler.sampler),
        step_size=sampler.step_size,
        localization=sampler.localization,
        nbeta=sampler.nbeta,
        chains=sampler.chains,
        draws=sampler.draws,
        burn_in=sampler.burn_in,
        batch=experiment.batch_size(),
        context=shape.n_ctx,
        mixture=MIXTURE,
        contexts=contexts_of(experiment.behaviour),
        took=_took(experiment),
        planted_share=planted_share(experiment, folder),
    )


def contexts_of(settings: BehaviourSettings) -> dict[str, int]:
    """Held-out contexts of each kind of data, by measurement as captions name it; "tokens" looks at the contexts of "ablation"."""
    return {
        "losses": settings.contexts,
        "scores": settings.sequences,
        "ablation": settings.ablation.contexts,
        "n-grams": settings.contexts,
        "paths": settings.paths.contexts,
        "attribution": settings.tables.contexts,
        "multigrams": settings.memorised.contexts,
        "baselines": settings.baselines.contexts,
    }


def _took(experiment: Experiment) -> dict[str, str]:
    """What measurements took beside held-out contexts, in sentences."""
    settings = experiment.behaviour
    few, repeats = settings.baselines, settings.repeats
    segment = min(settings.segment, (experiment.model.n_ctx - 1) // repeats)
    pieces = [f"{plural(few.probes, 'random vector')} a context behind the Hessian's trace"]
    pieces += [f"its {plural(few.top, 'largest eigenvalue')}"] if few.top else []
    pieces += [f"{plural(few.draws, 'draw')} a context behind each Fisher trace"]
    pieces += [f"{plural(few.twin_probes, 'random vector')} of {plural(few.twin_steps, 'product')} with the Hessian behind the curvature twin"]
    return {
        "scores": f"Prefix matching on {plural(settings.sequences, 'sequence')} of {segment} random tokens, repeated {repeats} times.",
        "n-grams": f"At most {settings.ngrams.probes:,} n-grams of each length, and as many skip n-grams.",
        "baselines": f"They take {listed(pieces)}.",
    }


def controls_of(experiment: Experiment, findings: Findings) -> dict[str, Curves]:
    """Parts of random weights on the mixture, heads on shuffled tokens, and the heads of the untrained model."""
    found: dict[str, Curves] = {}
    others, heads = findings.full.get(MIXTURE), findings.curves.get(MIXTURE)
    if others is not None and (drawn := [part for part in others.parts if ".random" in part]):
        found["random weights"] = select(others, drawn)
    for name, refinement in experiment.refinements.items():
        if refinement.shuffled and name in findings.curves:
            found["shuffled tokens" if name == "shuffled" else f"shuffled tokens ({name})"] = findings.curves[name]
    if found and heads is not None and heads.steps.size and heads.steps[0] == 0:
        found["the untrained model"] = _at_first(heads)
    return found


def _at_first(curves: Curves) -> Curves:
    return at(curves, slice(None), slice(1))


def _seeds(experiment: Experiment, folder: RunFolder, findings: Findings) -> Mapping[str, SeedRun]:
    main = findings.curves.get(MIXTURE)
    # By attention alone, which is measured of every seed: the findings' own types also know what ablation hurts.
    found = {} if main is None else {MAIN: SeedRun(main, head_types(findings.behaviour, experiment.analysis))}
    for name in seeds_of(experiment):
        sibling = sibling_of(experiment.sibling(name), folder.sibling(name))
        if sibling is not None and MIXTURE in sibling.curves:
            found[name] = SeedRun(sibling.curves[MIXTURE], head_types(sibling.behaviour, experiment.analysis))
    return found if len(found) > 1 else {}


def _calibration(folder: RunFolder) -> CalibrationMap | None:
    path = folder.calibration / MAP
    try:
        return map_from_json(read_regular(path).decode(errors="replace")) if path.is_file() else None
    except OSError as error:
        raise RllcError(
            f"{path} could not be read: {error.strerror or error}.", "Run `rllc calibrate` again, or remove the folder calibration."
        ) from error


def _shares(experiment: Experiment, folder: RunFolder) -> TokenShares | None:
    """Of the heads on the mixture at the last checkpoint that has them; None where there are none."""
    if not experiment.sampling.share_contexts:
        return None
    try:
        return token_shares(folder.root, MIXTURE)
    except DamagedRecordError:
        raise
    except RllcError:  # none are recorded, which the catalogue says in its own words
        return None
