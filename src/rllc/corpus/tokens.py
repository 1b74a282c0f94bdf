"""A corpus on disk, read: one memory-mapped file of tokens a domain, split by document; `corpus.json` says what is what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rllc.core import digest, files
from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ints = NDArray[np.int64]
Stamps = tuple[tuple[str, int, int], ...]
FORMAT = 1
HEADER = "corpus.json"
SPLITS = ("train", "heldout")


class DamagedCorpusError(RllcError):
    """A corpus that is not what was written: the one refusal that building it again cures."""


@dataclass(frozen=True)
class Domain:
    """The tokens of one domain: every document behind a BOS, the training documents first, the held-out ones after them.

    Args:
        tokens: token ids [N], BOS included, memory-mapped.
        starts: where each document's BOS stands, and N at the end [documents + 1].
        train_documents: how many documents are for training.
        bytes: bytes of text by split; zeros for a planted domain.
        digest: digest of all that stands above.
        planted: whether the domain was generated.
        description: what it is, as a phrase.
        structure: what is known of a planted domain, JSON-able: its `kind`, and `segment` (echo: shortest and longest), `pairs` (brackets:
            opening and closing ids), `order`, `tokens` and `entropy_rate` in nats (markov). Empty for text.
        table: the conditional probabilities of a `markov` domain [states, …, states], else None.
    """

    name: str
    tokens: NDArray[np.unsignedinteger[Any]]
    starts: NDArray[np.int64]
    train_documents: int
    bytes: Mapping[str, int]
    digest: str
    planted: bool = False
    description: str = ""
    structure: Mapping[str, Any] = field(default_factory=dict)
    table: NDArray[np.float64] | None = None

    @property
    def heldout(self) -> NDArray[np.bool_]:
        """Whether each document is held out [documents]."""
        return np.arange(len(self.starts) - 1) >= self.train_documents

    def documents_of(self, split: str) -> range:
        """Indices of the documents of a split. Raises RllcError where there is no such split."""
        if split not in SPLITS:
            raise RllcError(f"{split!r} is no split of a corpus.", "Use train or heldout.")
        return range(self.train_documents) if split == "train" else range(self.train_documents, len(self.starts) - 1)

    def document(self, index: int) -> NDArray[np.int64]:
        """Token ids of one document, its BOS first."""
        return self.tokens[self.starts[index] : self.starts[index + 1]].astype(np.int64)

    def stats(self) -> dict[str, Any]:
        """Documents, tokens (BOS included), bytes, tokens a document and bytes a token, over all and by split."""

        def of(documents: int, tokens: int, size: int) -> dict[str, Any]:
            text_tokens = tokens - documents
            return {
                "documents": documents,
                "tokens": tokens,
                "bytes": size,
                "tokens_per_document": tokens / documents if documents else 0.0,
                "bytes_per_token": size / text_tokens if text_tokens else 0.0,
            }

        border = int(self.starts[self.train_documents])
        held = len(self.starts) - 1 - self.train_documents
        return {
            **of(len(self.starts) - 1, len(self.tokens), sum(self.bytes.values())),
            "train": of(self.train_documents, border, self.bytes["train"]),
            "heldout": of(held, len(self.tokens) - border, self.bytes["heldout"]),
        }


@dataclass(frozen=True)
class Corpus:
    """An opened corpus.

    Args:
        folder: where it lies.
        domains: its domains by name, sorted.
        tokenizer: path of its tokenizer.json.
        vocabulary: one more than the largest token id, special tokens included.
        bos: id of the token that every document and every context begins with.
        specials: ids that no text contains, BOS among them.
        digest: digest of tokenizer and all domains: what a model trained on it was trained on.
        inputs: digest of settings and sources, by which a build is recognised.
        stamps: size and last change of its files when they were opened.
    """

    folder: Path
    domains: Mapping[str, Domain]
    tokenizer: Path
    vocabulary: int
    bos: int
    specials: tuple[int, ...]
    digest: str
    inputs: str
    stamps: Stamps = ()

    @property
    def touched(self) -> bool:
        """Whether a file was written to, or exchanged, since the corpus was opened."""
        return bool(self.stamps) and _stamps(self.folder) != self.stamps

    def check_untouched(self) -> None:
        """Raises RllcError where a file was touched since: tokens are mapped, so that what was read of them may be of another text."""
        if self.touched:
            open_corpus(self.folder)
            raise RllcError(
                f"The corpus in {self.folder} was written to while it was read; what was computed meanwhile is not kept.",
                "Leave it alone and run the same command again, which goes on where it was.",
            )

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        r"""One printable string a token: a space reads ␣, a line end ⏎, a tab ⇥, bytes that are no character by themselves \xNN.

        Raises RllcError for an id outside the vocabulary.
        """
        wanted = [int(i) for i in np.asarray(ids).reshape(-1)]
        if outside := [i for i in wanted if not 0 <= i < len(self._printable)]:
            raise RllcError(f"{outside[0]} is no token of this corpus.", f"Its ids run from 0 to {len(self._printable) - 1}.")
        return [self._printable[i] for i in wanted]

    def encode(self, text: str) -> NDArray[np.int64]:
        """Token ids of a text [T], without BOS."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def text(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """The text that ids stand for, special tokens left out; bytes that are no character read as U+FFFD."""
        return self._tokenizer.decode([int(i) for i in np.asarray(ids).reshape(-1)], skip_special_tokens=True)

    def describe(self) -> dict[str, Any]:
        """What a report says of the corpus, JSON-able."""
        return {
            "digest": self.digest,
            "vocabulary": self.vocabulary,
            "bos": self.bos,
            "domains": {
                name: {
                    "description": domain.description,
                    "planted": domain.planted,
                    "structure": dict(domain.structure),
                    "digest": domain.digest,
                    **domain.stats(),
                }
                for name, domain in self.domains.items()
            },
        }

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from rllc.corpus.tokenizer import load_tokenizer  # here, since batches need no tokenizer

        return load_tokenizer(self.tokenizer)

    @cached_property
    def _printable(self) -> tuple[str, ...]:
        from rllc.corpus.tokenizer import printable_tokens

        return printable_tokens(self._tokenizer)


def open_corpus(folder: Path, verify: bool = True) -> Corpus:
    """Open the corpus in `folder`; tokens are mapped, not read. `verify` compares the digest of every file.

    Raises RllcError where there is none, where a file is missing or altered, or where a newer version wrote it.
    """
    stamps = _stamps(folder)
    header = read_header(folder)
    try:
        domains = {name: _open_domain(folder, name, entry, verify) for name, entry in sorted(header["domains"].items())}
        tokenizer = _checked(folder, header["tokenizer"], verify)
        return Corpus(
            folder=folder,
            domains=domains,
            tokenizer=tokenizer,
            vocabulary=header["vocabulary"],
            bos=header["bos"],
            specials=tuple(header["specials"]),
            digest=header["digest"],
            inputs=header["inputs"],
            stamps=stamps,
        )
    except (ValueError, EOFError, OSError, KeyError, TypeError, AttributeError, IndexError) as error:
        _damaged(folder, f"its arrays cannot be read ({error})")


def _stamps(folder: Path) -> Stamps:
    try:
        found = [(path.name, path.stat()) for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:  # a file is gone, of which those who need it tell
        return (("", 0, 0),)
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))


def read_header(folder: Path) -> dict[str, Any]:
    """The content of `corpus.json`. Raises RllcError as `open_corpus` does, without looking at the files it names."""
    path = folder / HEADER
    if not path.is_file():
        raise RllcError(f"There is no corpus in {folder}.", "Build one with `rllc corpus`, or check the folder.")
    try:
        header = files.parse_json(files.read_text(path))
        version = header["format"]
        newer = version > FORMAT
        seal, found = header.pop("seal", None), digest.of_json(header)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        _damaged(folder, f"{HEADER} cannot be read")
    if newer:
        raise RllcError(
            f"The corpus in {folder} was written by a newer version of rllc (format {version}; this one reads up to {FORMAT}).",
            "Upgrade rllc, or build the corpus again in another folder.",
        )
    if seal != found:
        _damaged(folder, f"{HEADER} is not what was written")
    return header


def _open_domain(folder: Path, name: str, entry: dict[str, Any], verify: bool) -> Domain:
    paths = {kind: _checked(folder, item, verify) for kind, item in entry["files"].items()}
    tokens = np.load(paths["tokens"], mmap_mode="r", allow_pickle=False)
    starts = np.load(paths["documents"], allow_pickle=False)
    if tokens.ndim != 1 or len(starts) < 2 or starts[-1] != len(tokens):
        raise ValueError("the documents do not end where the tokens do")
    table = np.load(paths["table"], allow_pickle=False) if "table" in paths else None
    return Domain(
        name=name,
        tokens=tokens,
        starts=starts,
        train_documents=entry["train_documents"],
        bytes=entry["bytes"],
        digest=entry["digest"],
        planted=entry["planted"],
        description=entry["description"],
        structure=entry["structure"],
        table=table,
    )


def _checked(folder: Path, entry: dict[str, str], verify: bool) -> Path:
    path = folder / entry["file"]
    if path.parent != folder or path.name in ("", ".."):
        _damaged(folder, f"{HEADER} names a file elsewhere")
    if not path.is_file():
        _damaged(folder, f"{path.name} is missing")
    if verify and digest.of_file(path) != entry["digest"]:
        _damaged(folder, f"{path.name} is not what was written")
    return path


def _damaged(folder: Path, what: str) -> NoReturn:
    raise DamagedCorpusError(f"The corpus in {folder} is damaged: {what}.", "Remove the folder and build the corpus again; its text is read anew.")
