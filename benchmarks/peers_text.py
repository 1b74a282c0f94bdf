"""Real tokens for the comparisons with peers: this machine's own Python sources, as token ids.

The corpus is built by `rllc.corpus` once and kept under `runs/`, which git ignores; the vocabulary of 5,000 takes some ten seconds the first time.
"""

from __future__ import annotations

import email
from pathlib import Path

import numpy as np
import torch

from rllc.core import seeds
from rllc.corpus.batches import Mixture, contexts
from rllc.corpus.build import build_corpus
from rllc.corpus.settings import CorpusSettings, SourceSettings

FOLDER = Path(__file__).resolve().parents[1] / "runs" / "bench"
SMALL = 600  # a vocabulary up to here is trained on one package of the standard library, in a second


def real_tokens(vocabulary: int, context: int, n: int, *, seed: int = 0, folder: Path = FOLDER) -> torch.Tensor:
    """`n` contexts of code [n, context], i.i.d. with replacement from the training documents, as `rllc run` draws its minibatches."""
    if vocabulary <= SMALL:
        paths = (str(Path(email.__file__).parent),)
        settings = CorpusSettings((SourceSettings("files", domain="code", paths=paths, pattern="*.py"),), vocabulary=vocabulary)
    else:
        settings = CorpusSettings((SourceSettings("python"),), vocabulary=vocabulary)
    corpus = build_corpus(settings, folder / f"corpus-{vocabulary}")
    drawn = contexts(corpus, Mixture.of("code"), "train", n, context, seeds.generator(seed, "peers", n))
    return torch.from_numpy(np.ascontiguousarray(drawn))
