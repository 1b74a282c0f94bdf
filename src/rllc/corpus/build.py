"""From settings to a corpus on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rllc.core import digest, seeds
from rllc.core.errors import RllcError
from rllc.corpus import planted
from rllc.corpus.hub import given_tokenizer
from rllc.corpus.settings import CorpusSettings, SourceSettings
from rllc.corpus.sources import Document, Progress, fingerprint, gather, held_out
from rllc.corpus.standard_library import CODE, PROSE
from rllc.corpus.tokenizer import bos_id, encode_documents, special_ids, train_tokenizer, vocabulary_size
from rllc.corpus.tokens import HEADER, Corpus, DamagedCorpusError, Domain, open_corpus, read_header
from rllc.corpus.writing import make_domain, tokenizer_entry, write_domain, write_header, write_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LIBRARY = {
    CODE: "sources of the Python standard library, docstrings taken out",
    PROSE: "docstrings, help topics and licence of the Python standard library",
}


def build_corpus(settings: CorpusSettings, folder: Path, progress: Progress | None = None, expected: str = "") -> Corpus:
    """Build the corpus of `settings` in `folder`, or open it where it is there already.

    It is there already where settings and local text are those it was made from (remote datasets count by name and revision) and no
    file is damaged. Equal settings and text give equal files, byte for byte. Another corpus in the folder is replaced once the new
    one is complete: at every moment `folder` holds one whole corpus or none.

    Args:
        settings: sources, tokenizer, split.
        folder: where the corpus goes.
        progress: called with a stage and the share of it that is done.
        expected: digest of the corpus that the folder is to hold; a new one that is another is refused, and what lies there stays.

    Raises:
        RllcError: a domain without text, a vocabulary larger than the text allows, text that cannot be read, a missing extra,
            a full disk, a corpus written by a newer version.
    """
    report, settings = progress or (lambda _stage, _share: None), settings.placed()
    inputs = fingerprint(settings)
    tokenizer = given_tokenizer(settings.tokenizer) if settings.tokenizer else None
    inputs["tokenizer"] = digest.of_json(tokenizer.to_str()) if tokenizer else None
    key = digest.of_json(inputs)
    if (finished := _finished(folder, key)) is not None:
        return finished

    texts = gather(settings, report)
    held = {name: held_out([document.share for document in documents], settings.heldout, name) for name, documents in texts.items()}
    if tokenizer is None:
        report("training the tokenizer", 0.0)
        learned = (document.text for name in texts for document, out in zip(texts[name], held[name], strict=True) if not out)
        tokenizer = train_tokenizer(learned, settings.vocabulary)
        report("training the tokenizer", 1.0)
    specials = special_ids(tokenizer)
    bos = bos_id(tokenizer, settings.bos)
    domains = {name: _text_domain(name, texts[name], held[name], _description(name, settings), tokenizer, bos, report) for name in texts}
    for source in settings.sources:
        if source.planted:
            name = source.domain or source.kind
            if name in domains:
                raise RllcError(f"Two sources name the domain {name!r}, and one of them is planted.", "Give the planted one a `domain` of its own.")
            report(f"planting {name}", 0.0)
            domains[name] = _planted_domain(name, source, settings, tokenizer, bos)
            report(f"planting {name}", 1.0)

    entry = tokenizer_entry(tokenizer.to_str())
    key_of_all = digest.of_json({"tokenizer": entry["digest"], "bos": bos, "domains": {name: domains[name].digest for name in domains}})
    if expected not in ("", key_of_all):
        raise RllcError(
            f"The text of the corpus, or a setting of it, is another one than the checkpoints beside {folder} were trained with.",
            "Put text and settings back as they were, or choose another folder with --out; nothing here was changed.",
        )
    write_tokenizer(folder, tokenizer.to_str())
    header = {
        "settings": inputs["settings"],
        "inputs": key,
        "digest": key_of_all,
        "tokenizer": entry,
        "vocabulary": vocabulary_size(tokenizer),
        "bos": bos,
        "specials": specials,
        "domains": {name: write_domain(folder, domain) for name, domain in domains.items()},
    }
    write_header(folder, header)
    return open_corpus(folder)


def _finished(folder: Path, key: str) -> Corpus | None:
    if not (folder / HEADER).is_file():
        return None
    try:
        return open_corpus(folder) if read_header(folder)["inputs"] == key else None
    except DamagedCorpusError:
        return None


def _text_domain(
    name: str, documents: Sequence[Document], held: NDArray[np.bool_], description: str, tokenizer: Tokenizer, bos: int, report: Progress
) -> Domain:
    stage = f"encoding {name}"
    report(stage, 0.0)
    ordered = [document for side in (False, True) for document, out in zip(documents, held, strict=True) if out == side]
    sizes = [len(document.content) for document in ordered]
    rows: list[NDArray[np.int64]] = []
    done, shown = 0, 0.0
    for size, ids in zip(sizes, encode_documents(tokenizer, [document.text for document in ordered]), strict=True):
        rows.append(ids)
        done += size
        if done >= (shown + 0.01) * sum(sizes):
            shown = done / sum(sizes)
            report(stage, shown)
    train = int((~held).sum())
    tokens, starts = _joined(rows, bos, vocabulary_size(tokenizer))
    return make_domain(name, tokens, starts, train, {"train": sum(sizes[:train]), "heldout": sum(sizes[train:])}, description)


def _description(name: str, settings: CorpusSettings) -> str:
    phrases = []
    for source in settings.sources:
        if source.kind == "python" and name in _LIBRARY:
            phrases.append(_LIBRARY[name])
        elif source.kind in ("files", "huggingface") and source.domain in ("", name):
            phrases.append(f"the dataset {source.dataset}" if source.dataset else "local files")
    return " and ".join(dict.fromkeys(phrases)) or "text"


def _planted_domain(name: str, source: SourceSettings, settings: CorpusSettings, tokenizer: Tokenizer, bos: int) -> Domain:
    rng = seeds.generator(settings.seed, "corpus", "planted", name)
    specials = set(special_ids(tokenizer))
    alphabet = np.array(sorted(set(tokenizer.get_vocab().values()) - specials), dtype=np.int64)
    length = source.document_tokens - 1  # behind BOS
    table: NDArray[np.float64] | None = None
    structure: dict[str, Any] = {"kind": source.kind}
    if source.kind == "echo":
        rows, _ = planted.echo(rng, source.tokens // (length + 1), length, source.segment, alphabet)
        structure["segment"] = list(source.segment)
        description = f"random segments of {source.segment[0]} to {source.segment[1]} tokens, repeated"
    elif source.kind == "brackets":
        length -= length % 2
        pairs = _bracket_ids(source.pairs, tokenizer)
        rows = planted.brackets(rng, source.tokens // (length + 1), length, pairs)
        structure["pairs"] = [list(pair) for pair in pairs]
        description = f"Dyck words over {source.pairs}"
    else:
        law = planted.markov_table(rng, alphabet, source.states, source.order, source.concentration)
        rows = planted.markov(rng, source.tokens // (length + 1), length, law)
        table = law.probabilities
        structure |= {"order": source.order, "tokens": law.tokens.tolist(), "entropy_rate": law.entropy_rate()}
        description = f"a known table of order {source.order} over {source.states} tokens"
    held = held_out([Document.of(row.tobytes(), settings.seed).share for row in rows], settings.heldout, name)
    tokens, starts = _joined([*rows[~held], *rows[held]], bos, vocabulary_size(tokenizer))
    no_text = {"train": 0, "heldout": 0}
    return make_domain(name, tokens, starts, int((~held).sum()), no_text, description, planted=True, structure=structure, table=table)


def _bracket_ids(pairs: str, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    ids = []
    for c in pairs:
        i = tokenizer.token_to_id(c)
        if i is None:
            raise RllcError(f"The tokenizer has no token for {c!r} alone.", "Choose other `pairs`, of single-byte characters.")
        ids.append(i)
    return list(zip(ids[::2], ids[1::2], strict=True))


def _joined(rows: Sequence[NDArray[np.int64]], bos: int, vocabulary: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """All documents one after another, each behind BOS, in the narrowest type that holds the vocabulary; and where each begins."""
    starts = np.concatenate([[0], np.cumsum([len(row) + 1 for row in rows])]).astype(np.int64)
    tokens = np.empty(int(starts[-1]), dtype=np.uint16 if vocabulary <= 2**16 else np.uint32)
    tokens[starts[:-1]] = bos
    for row, start in zip(rows, starts[:-1], strict=True):
        tokens[start + 1 : start + 1 + len(row)] = row
    return tokens, starts
