"""Documents from Hugging Face datasets by name, through the `datasets` library (an extra)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rllc.core.errors import RllcError
from rllc.corpus.local_files import missing_extra, row_document
from rllc.corpus.settings import SourceSettings


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
