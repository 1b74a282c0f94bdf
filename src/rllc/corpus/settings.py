"""What a corpus is made of: the torch-free settings of this room. Defaults of a study live in its experiment file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rllc.core.errors import RllcError

Kind = Literal["python", "files", "huggingface", "echo", "brackets", "markov"]
TEXT_KINDS: tuple[str, ...] = ("python", "files", "huggingface")
PLANTED_KINDS: tuple[str, ...] = ("echo", "brackets", "markov")
SMALLEST_VOCABULARY = 257
"""The 256 bytes and BOS: a byte-level vocabulary cannot be smaller."""
_LARGEST_TABLE = 1_000_000
_MOST_TOKENS = 2_000_000_000  # of a planted domain, which is made in memory
LARGEST_VOCABULARY = 10_000_000
_LONGEST_NAME = 100  # of a domain, which files are named after


@dataclass(frozen=True)
class SourceSettings:
    """One place that documents come from: one `[[corpus.sources]]` table of an experiment file.

    Args:
        kind: `python` (this machine's standard library: domains `code` and `prose`), `files`, `huggingface`,
            or a planted domain: `echo`, `brackets`, `markov`.
        domain: name of the domain. Needed for `files` and `huggingface` unless every row names its own; a planted domain is
            called by its kind where none is given.
        paths: `files`: files and folders. Text (`.txt .md .rst .py` and other text suffixes), `.jsonl` (plain, `.gz`, `.xz`, `.zst`)
            and `.parquet`.
        pattern: `files`: which files of a folder to take, such as `*.md`; empty means every suffix that this room reads.
        document_characters: `files`: cut longer plain texts at line ends into documents of about this many characters; 0 = one
            document a file. A corpus of one long file needs this, since whole documents are held out.
        dataset: `huggingface`: name on the hub, or a folder that `datasets` can load.
        subset: `huggingface`: configuration of the dataset; empty means its only one.
        split: `huggingface`: the published split to read. Training and held-out documents are both taken from it.
        revision: `huggingface`: commit, tag or branch. Fix it: remote text is not read again to see whether it has changed.
        streaming: `huggingface`: read no more than `max_bytes` of a shuffled stream, instead of downloading the whole and
            choosing documents by hash.
        shuffle_buffer: `huggingface`, streaming: rows among which the stream is shuffled; 0 = the order of publication.
        text_column: name of the text in a row; dots reach into nested fields.
        domain_column: name of the domain in a row, where there is one; it wins over `domain`. Empty switches it off.
        max_bytes: most bytes of text that this source gives to a domain; 0 = the corpus's own cap.
        tokens: planted: how many tokens to generate, BOS included (rounded down to whole documents).
        document_tokens: planted: tokens of a document, BOS included.
        segment: `echo`: shortest and longest repeated segment, in tokens; every length between is equally likely.
        pairs: `brackets`: opening and closing characters, alternating.
        order: `markov`: how many preceding tokens the next one depends on.
        states: `markov`: how many different tokens occur.
        concentration: `markov`: Dirichlet concentration of each row of the table; small = nearly deterministic.
    """

    kind: Kind
    domain: str = ""
    paths: tuple[str, ...] = ()
    pattern: str = ""
    document_characters: int = 0
    dataset: str = ""
    subset: str = ""
    split: str = "train"
    revision: str = ""
    streaming: bool = True
    shuffle_buffer: int = 1_000
    text_column: str = "text"
    domain_column: str = "domain"
    max_bytes: int = 0
    tokens: int = 1_000_000
    document_tokens: int = 64
    segment: tuple[int, int] = (8, 24)
    pairs: str = "()[]{}"
    order: int = 2
    states: int = 16
    concentration: float = 0.3

    def __post_init__(self) -> None:
        if self.kind not in TEXT_KINDS + PLANTED_KINDS:
            raise RllcError(f"{self.kind!r} is no kind of source.", f"Use one of {', '.join(TEXT_KINDS + PLANTED_KINDS)}.")
        if self.domain and (not re.fullmatch(r"[\w.-]+", self.domain) or len(self.domain.encode()) > _LONGEST_NAME):
            raise RllcError(f"{self.domain!r} cannot name a domain.", f"Use letters, digits, '_', '-' and '.', at most {_LONGEST_NAME} bytes.")
        check = {"python": self._check_python, "files": self._check_files, "huggingface": self._check_huggingface}
        check.get(self.kind, self._check_planted)()

    @property
    def planted(self) -> bool:
        """Whether the source is generated with a known structure instead of read."""
        return self.kind in PLANTED_KINDS

    def _check_python(self) -> None:
        if self.domain:
            raise RllcError(
                f"The source of kind 'python' was given the domain {self.domain!r}, but it names its own two, code and prose.", "Leave `domain` out."
            )

    def _check_files(self) -> None:
        if not self.paths:
            raise RllcError("The source of kind 'files' names no file or folder.", 'Write paths = ["..."] in its table.')

    def _check_huggingface(self) -> None:
        if not self.dataset:
            raise RllcError("The source of kind 'huggingface' names no dataset.", 'Write dataset = "owner/name" in its table.')

    def _check_planted(self) -> None:
        name = self.domain or self.kind
        if self.tokens > _MOST_TOKENS:
            raise RllcError(f"The planted domain {name!r} asks for {self.tokens:,} tokens.", f"Give at most {_MOST_TOKENS:,}.")
        if self.document_tokens < 3 or self.tokens < 2 * self.document_tokens:
            raise RllcError(
                f"The planted domain {name!r} asks for {self.tokens} tokens in documents of {self.document_tokens}.",
                "Give documents at least 3 tokens, and at least two documents.",
            )
        if self.kind == "echo":
            low, high = self.segment
            if not 1 <= low <= high or 2 * high > self.document_tokens - 1:
                raise RllcError(
                    f"Segments of {low} to {high} tokens do not all repeat within documents of {self.document_tokens} tokens.",
                    "Keep 1 <= shortest <= longest <= (document_tokens - 1) / 2.",
                )
        elif self.kind == "brackets":
            if len(self.pairs) < 2 or len(self.pairs) % 2 or len(set(self.pairs)) != len(self.pairs):
                raise RllcError(f"{self.pairs!r} is not a list of bracket pairs.", 'Write different characters in pairs, such as "()[]{}".')
        elif (
            not 1 <= self.order <= math.log2(_LARGEST_TABLE)  # before a power is raised that nobody waits for
            or self.states < 2
            or not self.concentration > 0
            or self.states ** (self.order + 1) > _LARGEST_TABLE
        ):
            raise RllcError(
                f"A Markov table of order {self.order} over {self.states} tokens with concentration {self.concentration:g} cannot be made.",
                f"Keep order >= 1, states >= 2, concentration > 0 and states ** (order + 1) <= {_LARGEST_TABLE:,}.",
            )


Documents = Literal["packed", "one a row"]


@dataclass(frozen=True)
class CorpusSettings:
    """A corpus: its sources, its tokenizer and what is held out.

    Args:
        sources: where documents come from. Text sources that name the same domain are merged.
        path: folder that the relative paths of `files` start at; empty means the working directory. The one line to change where the text lies
            elsewhere.
        vocabulary: tokens of the byte-level BPE to train, BOS and the 256 bytes included. Not used with a given `tokenizer`.
        tokenizer: path of a given `tokenizer.json`; empty means train one on the training documents.
        bos: name of the given tokenizer's beginning-of-sequence token; empty means look for a usual one.
        heldout: share of the documents of each domain that is held out, chosen by a hash of seed and text.
        max_bytes: most bytes of text a domain; documents are chosen in hashed order, so that the cap is an unbiased sample.
        seed: root of the split, of the sample under the cap, and of planted domains.
    """

    sources: tuple[SourceSettings, ...]
    path: str = ""
    vocabulary: int = 512
    tokenizer: str = ""
    bos: str = ""
    heldout: float = 0.1
    max_bytes: int = 6_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sources:
            raise RllcError("The corpus has no sources.", 'Add a [[corpus.sources]] table, such as kind = "python".')
        if not self.tokenizer and self.vocabulary < SMALLEST_VOCABULARY:
            raise RllcError(
                f"A vocabulary of {self.vocabulary} is too small for byte-level tokens.", f"Use at least {SMALLEST_VOCABULARY}: 256 bytes and BOS."
            )
        if self.vocabulary > LARGEST_VOCABULARY:
            raise RllcError(f"A vocabulary of {self.vocabulary:,} was asked for.", f"Use at most {LARGEST_VOCABULARY:,}.")
        if not 0 <= self.heldout < 1:
            raise RllcError(f"heldout is a share of documents, but {self.heldout:g} was given.", "Use a number from 0 to below 1, such as 0.1.")
        if self.max_bytes < 1:
            raise RllcError(f"max_bytes is {self.max_bytes}, which leaves no text.", "Use a positive number of bytes a domain.")

    def placed(self) -> CorpusSettings:
        """The same with `path` put before the relative paths of its sources."""
        folder = Path(self.path).expanduser()
        sources = tuple(replace(source, paths=tuple(str(folder / Path(path).expanduser()) for path in source.paths)) for source in self.sources)
        return replace(self, sources=sources, path="") if self.path else self


@dataclass(frozen=True)
class RefinementSettings:
    """A data distribution q' of its own (METHOD 1): some contexts of other data, some predictions alone, or other targets.

    A prediction counts where every condition that is given holds; the loss is the mean over those of a minibatch. Without one, all count.

    Args:
        data: domain, "mixture", or a table of domains with their weights, a mixture of its own: `{code = 3, prose = 1}`.
        containing: contexts that hold a token with one of these texts in it; empty for all contexts.
        after: predictions made from a token that ends with one of these texts.
        of: predictions of a token that begins with one of these texts, spaces before it aside.
        induction: predictions of a token that followed the same token earlier in its context.
        shuffled: the tokens of every context in random order behind its BOS, a control that keeps how often each occurs and nothing else. The
            conditions above are then asked of what the model sees.
        reference: what gives the distribution of the next token in place of the labels: the step of a checkpoint, or the name of a sibling, whose
            last checkpoint it then is; -1 for labels.
    """

    data: str | Mapping[str, float] = "mixture"
    containing: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    induction: bool = False
    shuffled: bool = False
    reference: int | str = -1

    def __post_init__(self) -> None:
        for name in ("containing", "after", "of"):
            if "" in getattr(self, name):
                raise RllcError(f"{name} of a refinement holds an empty text, which every token has.", "Leave it out.")
        if isinstance(self.data, str) and not (self.containing or self.chooses or self.shuffled or self.refers):
            raise RllcError(f"The refinement of {self.data!r} refines nothing.", "Give containing, after, of, induction, shuffled or reference.")
        weights = {} if isinstance(self.data, str) else self.data
        if not isinstance(self.data, str) and not (weights and all(0 < weight < math.inf for weight in weights.values())):
            raise RllcError(f"A refinement mixes {dict(weights)}.", "Give one domain or more, each with a weight above 0.")

    @property
    def source(self) -> str:
        """What it refines, in words."""
        return repr(self.data) if isinstance(self.data, str) else " and ".join(repr(name) for name in self.data)

    @property
    def chooses(self) -> bool:
        """Whether only some predictions of a context count."""
        return bool(self.after or self.of or self.induction)

    @property
    def refers(self) -> bool:
        """Whether a model takes the place of the labels."""
        return isinstance(self.reference, str) or self.reference >= 0
