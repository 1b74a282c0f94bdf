"""Every figure of the paper by name: what draws it, what it needs, which artefact of METHOD 5 it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rllc.analysis.comparisons import SeedMatch
from rllc.figures import (
    attention,
    beside,
    by_cluster,
    circuit,
    effects,
    grouping,
    heads,
    learning,
    logit_paths,
    multigrams,
    over_seeds,
    painting,
    sensitivity,
    specialising,
    stages,
    token_classes,
    token_tables,
)
from rllc.figures.drawing import Drawing, Missing
from rllc.figures.material import Material


@dataclass(frozen=True)
class Entry:
    """One figure; `draw` gives None where what it `needs` is not there, and `Missing` where it is there but says nothing."""

    name: str
    draw: Callable[[Material], Drawing | Missing | None]
    needs: str  # in words, as the end of "It needs …"
    stands_for: str  # the artefact of METHOD 5 or 6


def _tree(m: Material) -> Drawing | Missing | None:
    trees = [c for c in m.findings.clusterings if c.linkage is not None]
    return grouping.tree_and_stability(trees[0], m.findings, m.told) if trees else None


def _numbers(m: Material) -> Drawing | Missing | None:
    found = m.findings.numbers
    if found is None:
        return None
    return grouping.how_many_clusters(found, f"{grouping.method_name(found.method)} on {found.preprocessing} curves of all heads", m.told)


def _matches(m: Material) -> tuple[SeedMatch, ...]:
    return m.findings.seeds.matches if m.findings.seeds is not None else ()


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        "loss-and-stages",
        lambda m: stages.loss_and_stages(m.findings, m.told),
        "estimates of the full model",
        "LLC of the full model over training, with the boundaries of its stages",
    ),
    Entry(
        "heads",
        lambda m: heads.heads_by_layer(m.findings, m.told),
        "estimates of heads",
        "wrLLC of all heads by layer: differentiation",
    ),
    Entry(
        "every-head",
        lambda m: heads.every_head(m.findings, m.told),
        "estimates of heads",
        "wrLLC of each head among the others",
    ),
    Entry(
        "heads-part",
        lambda m: specialising.when_heads_part(m.head_partings, m.findings, m.told) if m.head_partings else None,
        "comparisons of heads over training",
        "when heads differentiate",
    ),
    Entry(
        "refined-by-data",
        lambda m: specialising.refined_by_data(m.findings, m.data_partings, m.told),
        "estimates of heads on two kinds of data",
        "wdrLLC of each head on each kind of data: specialisation",
    ),
    Entry(
        "data-part",
        lambda m: specialising.when_data_part(m.data_partings, m.findings, m.told) if m.data_partings else None,
        "comparisons of kinds of data over training",
        "when heads specialise",
    ),
    Entry(
        "final-differences",
        lambda m: specialising.final_differences(m.findings, m.told),
        "estimates on two kinds of data at one checkpoint",
        "how far heads have specialised at the end",
    ),
    Entry(
        "wrllc-on-multigrams",
        lambda m: (
            multigrams.wrllc_on_multigrams(m.findings.regression, m.measured.memorised, m.findings, m.told)
            if m.findings.regression and m.measured.memorised
            else None
        ),
        "a regression of wrLLC on memorised multigrams",
        "final wrLLC against the number of memorised multigrams",
    ),
    Entry(
        "threshold-sensitivity",
        lambda m: multigrams.threshold_sensitivity(m.measured.memorised, m.findings, m.told) if m.measured.memorised else None,
        "counts of memorised multigrams",
        "that correlation under other thresholds",
    ),
    Entry(
        "multigrams-over-training",
        lambda m: multigrams.multigrams_over_training(m.measured.memorised, m.findings, m.told) if m.measured.memorised else None,
        "counts of memorised multigrams",
        "memorised n-grams and skip n-grams of each head over training",
    ),
    Entry(
        "multigram-table",
        lambda m: multigrams.multigram_table(m.measured.memorised, m.findings, m.told) if m.measured.memorised else None,
        "counts of memorised multigrams",
        "the multigrams that heads hold, as text",
    ),
    Entry(
        "attention-scores",
        lambda m: effects.attention_scores(m.findings, m.told),
        "attention scores",
        "previous-token, current-token and prefix-matching scores over training",
    ),
    Entry(
        "attention-maps",
        lambda m: attention.attention_maps(m.findings, m.told),
        "attention patterns",
        "attention patterns of the heads",
    ),
    Entry(
        "ablation",
        lambda m: effects.ablation_curves(m.measured.ablation, m.findings, m.told) if m.measured.ablation else None,
        "the ablation of heads",
        "zero, mean and resample ablation of each head over training on each kind of data",
    ),
    Entry(
        "ablated-loss",
        lambda m: effects.ablated_loss(m.measured.ablation, m.told) if m.measured.ablation else None,
        "the ablation of heads",
        "the loss that ablation is compared with",
    ),
    Entry(
        "clusters",
        _tree,
        "a hierarchical clustering",
        "hierarchical clustering of the curves, and how far noise made it",
    ),
    Entry(
        "kmeans-clusters",
        lambda m: by_cluster.kmeans_clusters(m.findings, m.told),
        "a K-means clustering of the last layer's heads",
        "wrLLC curves of the last layer's heads by K-means cluster: differentiation",
    ),
    Entry(
        "clusterings",
        lambda m: grouping.methods_against_types(m.findings.clusterings, m.findings.agreements, m.told),
        "clusterings of the curves",
        "K-means, DTW, hierarchical and shape-based clustering, each raw, standardised and min-max, against the types",
    ),
    Entry(
        "ablation-clusterings",
        lambda m: grouping.of_ablation(m.findings, m.told),
        "clusterings of ablation effects over training",
        "the same of the curves of ablation effects",
    ),
    Entry(
        "number-of-clusters",
        _numbers,
        "criteria for the number of clusters",
        "how many clusters there are",
    ),
    Entry(
        "ngrams",
        lambda m: learning.ngrams_and_context(m.measured.ngrams, m.findings.behaviour, m.told) if m.measured.ngrams else None,
        "n-gram scores",
        "bigram, n-gram and in-context-learning scores over training: what stages are about",
    ),
    Entry(
        "token-classes",
        lambda m: token_classes.class_shares(m.measured.shares, m.findings, m.told) if m.measured.shares else None,
        "classes of affected tokens",
        "classes of tokens among each head's most affected ones",
    ),
    Entry(
        "class-effects",
        lambda m: token_classes.class_effects(m.measured.shares, m.findings, m.told) if m.measured.shares else None,
        "classes of affected tokens",
        "what ablation does to each class of tokens",
    ),
    Entry(
        "nested-closers",
        lambda m: token_classes.nested_closers(m.measured.shares, m.findings, m.told) if m.measured.shares else None,
        "classes of affected tokens",
        "what ablation does to nested brackets and quotes",
    ),
    Entry(
        "against-one-layer",
        lambda m: circuit.against_one_layer(m.against_reference, m.findings, m.told) if m.against_reference else None,
        "estimates against a one-layer reference model",
        "the multigram circuit: rLLC against the one-layer model by layer",
    ),
    Entry(
        "edges",
        lambda m: circuit.edge_map(m.measured.paths, m.findings, m.told) if m.measured.paths else None,
        "path ablation",
        "path ablation of the edges between heads",
    ),
    Entry(
        "edges-over-training",
        lambda m: circuit.edges_over_training(m.measured.paths, m.told) if m.measured.paths else None,
        "path ablation",
        "path ablation of the strongest edges over training",
    ),
    Entry(
        "paths-to-logits",
        lambda m: logit_paths.to_logits(m.measured.paths, m.findings, m.told) if m.measured.paths else None,
        "path ablation",
        "path ablation from heads straight to the logits",
    ),
    Entry(
        "composition",
        lambda m: circuit.composition_scores(m.measured.composition, m.findings) if m.measured.composition else None,
        "composition scores",
        "Q-, K- and V-composition over training, above random",
    ),
    Entry(
        "affected-together",
        lambda m: circuit.affected_together(m.measured.tokens, m.findings, m.told) if m.measured.tokens else None,
        "per-token ablation",
        "heads of two layers that affect the same tokens",
    ),
    Entry(
        "most-affected",
        lambda m: painting.most_affected(m.measured.tokens, m.findings, m.told) if m.measured.tokens else None,
        "per-token ablation",
        "samples of maximal ablation effect",
    ),
    Entry(
        "painted-effects",
        lambda m: painting.painted_effects(m.measured.tokens, m.findings, m.told) if m.measured.tokens else None,
        "per-token ablation",
        "per-token ablation effect on text",
    ),
    Entry(
        "painted-shares",
        lambda m: painting.painted_shares(m.shares, m.findings, m.told) if m.shares else None,
        "per-token shares of complexity",
        "which tokens carry a head's complexity (METHOD 7)",
    ),
    Entry(
        "ov-circuits",
        lambda m: token_tables.circuit_table(m.measured.tables, m.findings, "ov") if m.measured.tables else None,
        "token tables of the circuits",
        "OV circuits of the heads",
    ),
    Entry(
        "qk-circuits",
        lambda m: token_tables.circuit_table(m.measured.tables, m.findings, "qk") if m.measured.tables else None,
        "token tables of the circuits",
        "QK circuits of the heads",
    ),
    Entry(
        "logit-attribution",
        lambda m: token_tables.logit_attribution(m.measured.tables, m.findings, m.told) if m.measured.tables else None,
        "direct logit attribution",
        "what heads add to the right logit",
    ),
    Entry(
        "baselines",
        lambda m: beside.baselines_over_training(m.measured.baselines, m.measured.ablation, m.findings, m.told) if m.measured.baselines else None,
        "baselines beside λ̂",
        "Hessian and Fisher traces, weight norms and ablation beside rLLC",
    ),
    Entry(
        "orderings",
        lambda m: beside.ordering_of_heads(m.findings.orderings, m.told) if m.findings.orderings else None,
        "orders of heads by baselines",
        "which baseline orders heads like rLLC",
    ),
    Entry(
        "curvature-twin",
        lambda m: beside.beyond_the_twin(m.findings.twins, m.findings, m.told),
        "curvature twins beside λ̂",
        "what rLLC adds to a Hessian: the curvature twin (METHOD 3.1c), and rLLC less it",
    ),
    Entry(
        "controls",
        lambda m: heads.controls(m.findings, m.controls, m.told) if m.controls else None,
        "estimates of controls",
        "a random part, the untrained model, shuffled tokens",
    ),
    Entry(
        "types-by-seed",
        lambda m: over_seeds.types_by_seed(m.seeds, _matches(m), m.told) if m.seeds else None,
        "several seeds",
        "head types over several seeds",
    ),
    Entry(
        "matched-heads",
        lambda m: over_seeds.matched_heads(m.seeds, _matches(m), m.told) if m.seeds else None,
        "several seeds",
        "curves of matched heads over several seeds",
    ),
    Entry(
        "sensitivity",
        lambda m: sensitivity.settings_grid(m.calibration) if m.calibration else None,
        "a calibration",
        "sensitivity to ε, γ and nβ",
    ),
    Entry(
        "temperatures",
        lambda m: stages.temperatures(m.findings, m.told) if m.findings.temperatures else None,
        'estimates of the full model at another inverse temperature (data = ["mixture^23"])',
        "sensitivity of the stages to nβ",
    ),
)
