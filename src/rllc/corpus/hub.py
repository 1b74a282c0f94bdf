"""Documents and tokenizers of the Hugging Face hub by name, through its own libraries (extras)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rllc.core.errors import RllcError
from rllc.corpus.local_files import missing_extra, row_document
from rllc.corpus.settings import SourceSettings
from rllc.corpus.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def read_dataset(source: SourceSettings, max_bytes: int, seed: int) -> Iterator[tuple[str, str]]:
    """Documents of a `huggingface` source as (domain, text).

    A stream is shuffled within `shuffle_buffer` rows and left after `max_bytes` of text, all domains together: the text is then a
    sample of the beginning of the dataset. Without streaming every row is read, and the caller's cap samples all of them.
    Raises RllcError where the library is missing, the dataset cannot be reached, or a row lacks its text.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]  # an extra, and slow to import
    except ImportError as error:
        raise missing_extra(f"The dataset {source.dataset!r}", "datasets") from error
    read = 0
    try:
        rows: Any = datasets.load_dataset(
            source.dataset, source.subset or None, split=source.split, streaming=source.streaming, revision=source.revision or None
        )
        if source.streaming and source.shuffle_buffer:
            rows = rows.shuffle(seed=seed, buffer_size=source.shuffle_buffer)
        for number, row in enumerate(rows, 1):
            domain, text = row_document(row, source, f"Row {number} of {source.dataset}")
            yield domain, text
            read += len(text.encode("utf-8", "replace"))
            if source.streaming and read >= max_bytes:
                return
    except (OSError, ValueError) as error:
        raise RllcError(
            f"The dataset {source.dataset!r} could not be read: {' '.join(str(error).split())}",
            "Check `dataset`, `subset`, `split`, `revision` and the network.",
        ) from error


def given_tokenizer(name: str) -> Tokenizer:
    """The tokenizer at a path, or where there is none that of a repository of the hub, "owner/name".

    Raises RllcError where neither is there, or is a tokenizer.
    """
    try:
        path = Path(name).expanduser()
        there = path.exists()
    except (OSError, RuntimeError) as error:  # a name that no file can have; a home of nobody
        raise RllcError(f"There can be no tokenizer at {name[:200]!r}.", "Give the path of a tokenizer.json.") from error
    if there or not _NAME.fullmatch(name) or path.suffix == ".json":
        return load_tokenizer(path)
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_extra(f"The tokenizer {name!r}", "huggingface-hub", "hf") from error
    try:
        return load_tokenizer(Path(huggingface_hub.hf_hub_download(name, "tokenizer.json")))
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise RllcError(
            f"The tokenizer of {name!r} could not be fetched: {told}", "Check the name and the network, or give the path of a tokenizer.json."
        ) from error
