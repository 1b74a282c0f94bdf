"""The first two stages: text to tokens, and tokens to a trained model with its checkpoints."""

from __future__ import annotations

import json
from typing import Any

from rllc.checkpoints.resume import drop_resume, load_resume, save_resume
from rllc.checkpoints.store import checkpoint_name, list_checkpoints, save
from rllc.core.errors import RllcError
from rllc.core.files import parse_json, read_text, write_atomic
from rllc.core.names import DataKey
from rllc.corpus.batches import Mixture, batch_stream
from rllc.corpus.build import build_corpus
from rllc.corpus.refinement import Refinement
from rllc.corpus.tokens import Corpus, open_corpus
from rllc.runs.engines.local import set_threads
from rllc.runs.experiment import MIXTURE, Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.memory import cores
from rllc.runs.progress import Reporter, duration
from rllc.runs.provenance import known_weights, read_provenance

# A killed training goes on from the last multiple of this many steps, or from its last checkpoint.
RESUME_EVERY = 200


def corpus_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    """Build the corpus, or find it there; check that the model and every planned data set fit it.

    Raises RllcError where they do not, and where the text is no longer the one that the checkpoints were trained on: the corpus there stays.
    """
    before = (read_provenance(folder) or {}).get("corpus", "")
    with reporter.stage("Collecting text", 1.0) as bar:
        corpus = build_corpus(experiment.corpus, folder.corpus, lambda stage, share: bar.note(f"{stage} {100 * share:.0f} %"), _trained_on(folder))
    if before not in ("", corpus.digest):
        reporter.line("The text is another one than before: whatever was computed on the former is computed anew, and its records stay beside those.")
    check_fit(experiment, corpus)
    sizes = ", ".join(f"{name} {len(domain.tokens):,}" for name, domain in corpus.domains.items())
    reporter.line(f"Corpus: {corpus.vocabulary} tokens of vocabulary; tokens by domain: {sizes}.")


def _trained_on(folder: RunFolder) -> str:
    """The digest of the corpus that the checkpoints were trained on; "" where there are none, or nothing tells."""
    try:
        found = parse_json(read_text(folder.training)).get("corpus", "") if list_checkpoints(folder.checkpoints) else ""
    except (OSError, ValueError, AttributeError, RllcError):
        return ""  # the next stage has a sentence for that
    return found if isinstance(found, str) else ""


def check_fit(experiment: Experiment, corpus: Corpus) -> None:
    """Raises RllcError where vocabulary, mixture, data or context do not fit the corpus."""
    if corpus.vocabulary != experiment.model.d_vocab:
        raise RllcError(
            f"The corpus has a vocabulary of {corpus.vocabulary}, but model.d_vocab is {experiment.model.d_vocab}.",
            "Leave model.d_vocab out, or give the tokenizer's own size as corpus.vocabulary.",
        )
    names = {MIXTURE: experiment.mixture} | {domain: {domain: 1.0} for domain in corpus.domains}
    for name, refinement in experiment.refinements.items():
        names[name] = experiment.weights_of(DataKey(name))
        if missing := [domain for domain in names[name] if domain not in corpus.domains]:
            raise RllcError(f"The refinement {name!r} is of {missing[0]!r}, which the corpus does not have.", "Name one of its domains.")
        Refinement(refinement, corpus)
    batch_stream(corpus, Mixture(MIXTURE, experiment.mixture), "train", 1, experiment.model.n_ctx, 0)
    for data, split in _planned_data(experiment):
        if data not in names:
            raise RllcError(f"sample.data names {data!r}, which the corpus does not have.", f"Its domains are {', '.join(corpus.domains)}.")
        batch_stream(corpus, Mixture(data, names[data]), split, 1, experiment.model.n_ctx, 0, documents=experiment.sampling.documents)


def _planned_data(experiment: Experiment) -> set[tuple[str, str]]:
    keys = [DataKey.parse(text) for block in experiment.sample for text in (*block.data, *block.evaluate_on)]
    return {(key.name, key.split) for key in keys}


def train_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    """Train to the end, keeping the planned checkpoints; go on from the last saved state where there is one.

    Raises RllcError where the folder holds checkpoints of another training, or one that was exchanged.
    """
    wanted = experiment.checkpoints()
    corpus = open_corpus(folder.corpus)
    facts = {"training": experiment.training_key(), "corpus": corpus.digest}
    claim(folder, facts)
    there = {info.step for info in list_checkpoints(folder.checkpoints)}
    if set(wanted) <= there:
        if other := exchanged_weights(folder):
            raise RllcError(
                f"The weights of step {other[0]} in {folder.checkpoints} are not those that this run has computed with.",
                f"Put them back from a copy, or delete {folder.checkpoints / checkpoint_name(other[0])}: training makes them again.",
            )
        return
    from rllc.runs.device import choose_device
    from rllc.training.loop import TrainingState, initial_state, train

    device = choose_device(experiment.engine.device)
    threads = experiment.engine.training_threads or cores()
    set_threads(threads)
    settings, shape = experiment.training, experiment.model
    if settings is None:
        raise ValueError("this experiment imports its model")
    stream = batch_stream(corpus, Mixture(MIXTURE, experiment.mixture), "train", settings.batch_size, shape.n_ctx, experiment.seed, "training")
    saved = load_resume(folder.checkpoints)
    state = initial_state(shape, settings)
    ours = saved is not None and {key: saved.facts.get(key) for key in facts} == facts
    if saved is not None and ours and all(step in there or step >= saved.facts["step"] for step in wanted):
        state = TrainingState.restore(shape, saved.tensors, saved.facts)
        reporter.line(f"Training goes on from step {state.step}.")
    with reporter.stage("Training", settings.steps, "steps") as bar:
        for item in train(shape, settings, stream, state.to(device)):
            if item.step in wanted or item.step % RESUME_EVERY == 0:
                corpus.check_untouched()
            if item.step in wanted:
                save(folder.checkpoints, item.step, shape, item.params, item.metrics)
            if item.step in wanted or item.step % RESUME_EVERY == 0:
                now = item.export()
                save_resume(folder.checkpoints, now.tensors(), now.facts() | facts)
            bar.reach(item.step, f"loss {item.metrics['loss']:.3f}" if item.metrics else "")
    drop_resume(folder.checkpoints)
    if other := exchanged_weights(folder):
        steps = ", ".join(map(str, other))
        reporter.line(f"Training gave other weights than before at steps {steps}: whatever was computed with those is computed anew.")
    reporter.line(f"Trained {settings.steps} steps on {threads} threads in {duration(bar.seconds)}; {len(wanted)} checkpoints.")


def exchanged_weights(folder: RunFolder) -> list[int]:
    """Steps whose weights are others than those that the run was at work with before."""
    known = known_weights(folder)
    return [info.step for info in list_checkpoints(folder.checkpoints) if known.get(info.step, info.digest) != info.digest]


def claim(folder: RunFolder, facts: dict[str, Any]) -> None:
    """Write down what the checkpoints come from, once. Raises RllcError where that folder has others already."""
    if folder.training.exists():
        try:
            found = parse_json(read_text(folder.training))
        except (OSError, ValueError) as error:
            raise RllcError(f"{folder.training} is damaged.", f"Delete {folder.checkpoints} and run the same command again.") from error
        if not isinstance(found, dict):
            raise RllcError(f"{folder.training} is damaged.", f"Delete {folder.checkpoints} and run the same command again.")
        if found != facts:
            what = "text" if found.get("corpus") != facts.get("corpus") else "model, mixture or training settings"
            raise RllcError(
                f"The checkpoints in {folder.checkpoints} were trained with another {what} than this experiment asks for.",
                "Choose another folder with --out, or delete that one.",
            )
        return
    if list_checkpoints(folder.checkpoints):
        raise RllcError(f"{folder.checkpoints} holds checkpoints of unknown origin.", "Choose another folder with --out.")
    write_atomic(folder.training, json.dumps(facts, indent=1) + "\n")
