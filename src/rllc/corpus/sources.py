"""From sources to documents: who reads what, the unbiased sample under a cap, and what is held out."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.corpus.hub import read_dataset
from rllc.corpus.local_files import files_fingerprint, read_files
from rllc.corpus.settings import CorpusSettings, SourceSettings
from rllc.corpus.standard_library import library_fingerprint, read_library

Progress = Callable[[str, float], None]


@dataclass(frozen=True, order=True)
class Document:
    """One document: its place in the hashed order, its share in [0, 1) that decides the split, its text in UTF-8.

    Place and share are independent, both made from seed and whole text: equal texts are never on both sides of the split.
    """

    place: int
    share: float
    content: bytes

    @classmethod
    def of(cls, content: bytes, seed: int) -> Document:
        """The document with this content under this seed."""
        h = hashlib.blake2b(content, digest_size=16, key=str(seed).encode()[:64]).digest()
        return cls(int.from_bytes(h[:8], "big"), (int.from_bytes(h[8:], "big") >> 11) / 2**53, content)

    @property
    def text(self) -> str:
        """The text."""
        return self.content.decode("utf-8")


class HashedSample:
    """The documents that come first in hashed order, up to a cap of bytes: an unbiased sample whatever the order of reading.

    A larger cap under the same seed holds the same documents and more. The last document is cut at the cap.
    Memory stays near the cap, however long the source.
    """

    def __init__(self, max_bytes: int, seed: int) -> None:
        self.max_bytes, self.seed = max_bytes, seed
        self._heap: list[tuple[int, float, bytes]] = []
        self._bytes = 0

    def add(self, text: str) -> None:
        """Offer a document; blank ones are ignored."""
        if text.strip():
            self.add_document(Document.of(text.encode("utf-8", "replace"), self.seed))

    def add_document(self, document: Document) -> None:
        """Offer a document that has its place already."""
        if self._bytes >= self.max_bytes and -self._heap[0][0] < document.place:
            return
        heapq.heappush(self._heap, (-document.place, document.share, document.content))
        self._bytes += len(document.content)
        while self._bytes - len(self._heap[0][2]) >= self.max_bytes:
            self._bytes -= len(heapq.heappop(self._heap)[2])

    def documents(self) -> list[Document]:
        """The sample in hashed order."""
        chosen = sorted(Document(-place, share, content) for place, share, content in self._heap)
        if self._bytes > self.max_bytes:
            last = chosen.pop()
            kept = last.content[: len(last.content) - (self._bytes - self.max_bytes)].decode("utf-8", "ignore")
            if kept.strip():
                chosen.append(Document(last.place, last.share, kept.encode()))
        return chosen


def read_source(source: SourceSettings, max_bytes: int, seed: int) -> Iterator[tuple[str, str]]:
    """Every document of a text source as (domain, text). `max_bytes` and `seed` matter to streams alone."""
    if source.kind == "python":
        return read_library()
    if source.kind == "files":
        return read_files(source)
    return read_dataset(source, max_bytes, seeds.derive(seed, "corpus", "stream", source.dataset) % 2**32)


def fingerprint(settings: CorpusSettings) -> dict[str, Any]:
    """What a corpus is made from, JSON-able: the settings and the digests of local text. Remote datasets count by name and revision."""
    content: list[Any] = []
    for source in settings.sources:
        if source.kind == "python":
            content.append(library_fingerprint())
        elif source.kind == "files":
            content.append(files_fingerprint(source))
        else:
            content.append(None)
    said = asdict(settings)
    del said["path"]  # it has been put before the paths
    return {"settings": said, "content": content}


def gather(settings: CorpusSettings, progress: Progress) -> dict[str, list[Document]]:
    """Documents of every text domain, in hashed order, under the caps.

    Raises RllcError where a source gives no text, besides what reading raises.
    """
    domains: dict[str, HashedSample] = {}
    texts = [source for source in settings.sources if not source.planted]
    for number, source in enumerate(texts):
        progress("reading text", number / len(texts))
        cap = source.max_bytes or settings.max_bytes
        samples: dict[str, HashedSample] = {}
        for domain, text in read_source(source, cap, settings.seed):
            samples.setdefault(domain, HashedSample(cap, settings.seed)).add(text)
        if not samples:
            raise _no_text(source.domain or source.kind)
        for domain, sample in samples.items():
            whole = domains.setdefault(domain, HashedSample(settings.max_bytes, settings.seed))
            for document in sample.documents():
                whole.add_document(document)
    found = {domain: sample.documents() for domain, sample in sorted(domains.items())}
    for domain, documents in found.items():
        if not documents:
            raise _no_text(domain)
    progress("reading text", 1.0)
    return found


def held_out(shares: Sequence[float] | NDArray[np.float64], heldout: float, domain: str) -> NDArray[np.bool_]:
    """Which documents are held out [documents]: those whose share lies below `heldout`, and at least one distinct text on either side.

    Raises RllcError where there is only one distinct document and some are to be held out.
    """
    share = np.asarray(shares, dtype=np.float64)
    held = share < heldout
    if heldout <= 0:
        return held
    if np.all(share == share[0]):
        raise RllcError(
            f"The domain {domain!r} has a single document, so none can be held out.",
            "Add documents, cut the text into several with `document_characters` in its source, or set heldout = 0.",
        )
    if not held.any():
        held = share == share.min()
    return held if not held.all() else share != share.max()


def _no_text(domain: str) -> RllcError:
    return RllcError(f"The domain {domain!r} has no text.", "Check the paths, columns and caps of its source, or leave the source out.")
