"""From what a notebook has to rows of token ids: ids as they are, texts through a tokenizer, a column of a data set, a stream, a file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rllc.core.errors import RllcError
from rllc.corpus.local_files import read_files
from rllc.corpus.settings import Documents, SourceSettings
from rllc.corpus.tokenizer import bos_id, encode_documents, parse_tokenizer
from rllc.runs.padding import is_padded, unpadded

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]
_COLUMNS = ("input_ids", "text")  # what data sets call ids and text, in the order in which they are looked for
_LONGEST = 1024  # tokens of a context where neither user nor model asks for fewer
_LOT = 256  # texts that are tokenized at a time


@dataclass(frozen=True)
class TokenRows:
    """Contexts of equal length.

    Args:
        tokens: ids [n, T].
        counts: [n, T] whether the prediction of a token counts: not of padding, nor of a BOS behind the first token.
        notes: what a user should know of how they were read.
        padded: whether some are shorter, and padded behind.
    """

    tokens: Int[Ids, "n T"]
    counts: Bool[Flags, "n T"]
    notes: tuple[str, ...] = ()
    padded: bool = False


def is_dataset(data: Any) -> bool:
    """Whether it is a data set with columns, as the datasets library makes them."""
    return hasattr(data, "column_names") and hasattr(data, "__getitem__")


def is_stream(data: Any) -> bool:
    """Whether it is read from its beginning and nobody knows how long it is: a data set that is streamed, a generator, an open file."""
    return hasattr(data, "__iter__") and not hasattr(data, "__len__")


def is_texts(data: Any) -> bool:
    """Whether it is a sequence of texts."""
    return isinstance(data, Sequence) and not isinstance(data, str) and len(data) > 0 and isinstance(data[0], str)


def token_rows(
    data: Any,
    *,
    tokenizer: Any = None,
    column: str = "",
    context: int = 0,
    documents: Documents = "packed",
    most_contexts: int = 16_384,
    limit: int = 0,
    vocabulary: int = 0,
) -> TokenRows:
    """Contexts of equal length from any of the forms that `rllc.estimate` takes.

    Ids [n, T] stay as they are, cut to `context` where one is given; a `tokenizer` beside them says which of them is a BOS. Texts, and rows of ids of
    different lengths where a `context` is given, are packed: the documents one after the other, each with the tokenizer's BOS before it where it has
    one, cut into contexts that begin with BOS too; what does not fill the last one is left out. "one a row" begins a context with every document,
    cuts what is too long and pads what is short.

    Args:
        data: ids [n, T] as tensor, array or lists; a mapping of `input_ids` and `attention_mask`; a sequence or stream of texts; a data set with
            columns, streamed or not, whose `attention_mask` is heeded; the path of a file or folder of text, .jsonl or .parquet.
        tokenizer: of texts; of ids for its BOS alone.
        column: of a data set or a file of rows; "input_ids" or "text" unless given.
        context: tokens T; 0 for those of the rows, and of texts for the model's, at most 1024.
        documents: how texts become contexts.
        most_contexts: reading of texts and streams stops when there are so many.
        limit: the model's longest context; 0 where it is not known.
        vocabulary: the model's; 0 where it is not known.

    Raises:
        RllcError: the data is empty or in none of these forms, a context is longer than the model's, or an id lies beyond the vocabulary.
    """
    masks: Any = None
    if isinstance(data, str | Path):
        data, column = _file(data, column), ""
    elif is_padded(data):
        data, masks = data["input_ids"], data["attention_mask"]
    elif is_dataset(data) or (is_stream(data) and not isinstance(data, Iterator)):
        (data, masks), column = _column(data, column), ""
    if column:
        raise RllcError(f"column={column!r} is given, but the data is a {type(data).__name__} without columns.", "Leave column out.")
    if limit and context > limit:
        raise RllcError(f"A context of {context} tokens is longer than the model's {limit}.", f"Set context to {limit} or less.")
    if isinstance(data, Iterator):
        first = list(islice(data, 1))
        texts, data = bool(first) and isinstance(first[0], str), chain(first, data)
    else:
        texts = is_texts(data)
    if texts:
        encoded, bos = _encoded(iter(data), tokenizer)
        length = context or min(limit or _LONGEST, _LONGEST)
        rows = _packed(encoded, bos, length, most_contexts) if documents == "packed" else _one_a_row(encoded, bos, length, most_contexts)
    else:
        stopped = False
        if isinstance(data, Iterator):
            read = list(islice(data, most_contexts))
            data, stopped = read, next(data, None) is not None
        rows = _rows(data, context) if masks is None else _masked(data, masks, context)
        known = None if tokenizer is None else _with_bos(tokenizer)[1]
        rows = replace(rows, counts=rows.counts & _no_bos(rows.tokens, known), notes=_stopped(stopped, most_contexts))
    return replace(rows, tokens=_checked(rows.tokens, limit, vocabulary))


def _file(path: str | Path, column: str) -> Iterator[str]:
    """The texts of a file or folder."""
    if not Path(path).expanduser().exists():
        if isinstance(path, str) and (" " in path.strip() or not Path(path).suffix):
            raise RllcError("The data is one string.", "Give a sequence of texts, [text], or the path of a file that exists.")
        raise RllcError(f"There is no file {path}.", "Give the path of a file of text, .jsonl or .parquet.")
    source = SourceSettings("files", domain="data", paths=(str(path),), text_column=column or "text", domain_column="")
    texts = (text for _, text in read_files(source))
    first = list(islice(texts, 1))
    if not first:
        raise RllcError(f"{path} holds no text.", "Give a file or folder with at least one document.")
    return chain(first, texts)


def _column(data: Any, column: str) -> tuple[Iterator[Any], Iterator[Any] | None]:
    """A column of a data set, row by row; of ids also the mask of those that are real, where there is one."""
    if getattr(data, "column_names", None) is not None:
        names = [str(name) for name in data.column_names]
        rows = iter(data)
    else:  # a stream that learns its columns from its first row
        rows = iter(data)
        first = list(islice(rows, 1))
        if first and not isinstance(first[0], Mapping):
            return chain(first, rows), None
        names, rows = [str(name) for row in first for name in row], chain(first, rows)
        if not first:
            raise RllcError("The data is empty.", "Give at least one context of token ids, or text.")
    chosen = column or next((name for name in _COLUMNS if name in names), "")
    if chosen not in names:
        near = difflib.get_close_matches(column, names, 1)
        problem = f"The data set has no column {column!r}" if column else f"The data set has neither a column {' nor '.join(_COLUMNS)}"
        raise RllcError(f"{problem}; it has {', '.join(names) or 'none'}.", f'Give column="{near[0] if near else (names or ["text"])[0]}".')
    masked = chosen == "input_ids" and "attention_mask" in names
    return (row[chosen] for row in rows), (row["attention_mask"] for row in data) if masked else None


def _encoded(texts: Iterator[str], tokenizer: Any) -> tuple[Iterator[Ids], int | None]:
    """Ids of every text without special tokens, a lot of texts at a time, and the BOS, if there is one."""
    if tokenizer is None:
        raise RllcError("The data is text, and there is no tokenizer.", "Give tokenizer=, of the model, or token ids.")
    encode, bos = _with_bos(tokenizer)
    return (np.asarray(ids, dtype=np.int64) for lot in _lots(texts) for ids in encode(lot)), bos


def _with_bos(tokenizer: Any) -> tuple[Callable[[list[str]], Any], int | None]:
    """What makes ids of texts, without special tokens, and the BOS."""
    import tokenizers

    if isinstance(tokenizer, tokenizers.Tokenizer):
        # a copy, since padding and cutting would have to be turned off in the user's
        own = parse_tokenizer(tokenizer.to_str())
        try:
            bos = bos_id(own)
        except RllcError:
            bos = None
        return lambda texts: encode_documents(own, texts), bos
    if not callable(tokenizer):
        raise RllcError(f"The tokenizer is a {type(tokenizer).__name__}.", "Give one of the transformers or the tokenizers library.")
    encode: Any = tokenizer
    return lambda texts: encode(texts, add_special_tokens=False, verbose=False)["input_ids"], getattr(tokenizer, "bos_token_id", None)


def _lots(texts: Iterator[str]) -> Iterator[list[str]]:
    while lot := list(islice(texts, _LOT)):
        yield lot


def _packed(documents: Iterable[Ids], bos: int | None, context: int, most: int) -> TokenRows:
    before = np.array([] if bos is None else [bos], dtype=np.int64)
    each = context if bos is None else context - 1
    if each < 1 or context < 2:
        raise RllcError(f"A context of {context} tokens predicts nothing.", "Use at least 2.")
    pieces, length, stopped = [before], 0, False
    for document in documents:
        if length >= most * context:
            stopped = True
            break
        pieces += [before, document]
        length += len(before) + len(document)
    stream = np.concatenate(pieces[1:] or pieces)
    rows: list[Ids] = []
    start = 0
    while start + each <= len(stream) and len(rows) < most:
        if bos is not None and stream[start] == bos:  # the document's own is the row's
            start += 1
            if start + each > len(stream):
                break
        rows.append(np.concatenate([before, stream[start : start + each]]))
        start += each
    if not rows:
        raise RllcError(f"The text has {len(stream)} tokens, fewer than one context of {context}.", "Give more text, or a smaller context.")
    tokens = np.stack(rows)
    return TokenRows(tokens, _no_bos(tokens, bos), _stopped(stopped, len(rows)))


def _one_a_row(documents: Iterable[Ids], bos: int | None, context: int, most: int) -> TokenRows:
    if context < 2:
        raise RllcError(f"A context of {context} tokens predicts nothing.", "Use at least 2.")
    before = np.array([] if bos is None else [bos], dtype=np.int64)
    whole = (np.concatenate([before, document])[:context] for document in documents)
    fitting = (row for row in whole if len(row) > 1)  # others hold nothing to predict
    rows = list(islice(fitting, most))
    stopped = next(fitting, None) is not None
    if not rows:
        raise RllcError("No text has a token to predict.", "Give longer texts.")
    longest = max(map(len, rows))
    tokens, counts = np.zeros((len(rows), longest), dtype=np.int64), np.zeros((len(rows), longest), dtype=bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], counts[i, : len(row)] = row, True
    return TokenRows(tokens, counts & _no_bos(tokens, bos), _stopped(stopped, len(rows)), not counts.all())


def _no_bos(tokens: Ids, bos: int | None) -> Flags:
    counts = np.ones(tokens.shape, dtype=bool) if bos is None else tokens != bos
    counts[:, 0] = True  # which nothing predicts anyway
    return counts


def _stopped(stopped: bool, rows: int) -> tuple[str, ...]:
    return (f"The data was read until there were {rows:,} contexts (most_contexts).",) if stopped else ()


def _masked(data: Any, masks: Any, context: int) -> TokenRows:
    """Rows with a mask of what is real in them; where all is, they need not be of equal length."""
    masks = [np.asarray(mask) for mask in (islice(masks, len(data)) if isinstance(masks, Iterator) else masks)]
    if all(mask.all() for mask in masks) and [np.shape(row) for row in data] == [mask.shape for mask in masks]:
        return _rows(data, context)
    ids, real = unpadded({"input_ids": data, "attention_mask": masks})
    rows = _rows(ids, context)
    return TokenRows(rows.tokens, real[:, : rows.tokens.shape[1]], padded=True)


def _rows(data: Any, context: int) -> TokenRows:
    if isinstance(data, torch.Tensor):
        data = data.detach().cpu().numpy()
    elif not isinstance(data, np.ndarray):
        data = [np.asarray(row) for row in data] if isinstance(data, Iterable) else data
        if isinstance(data, list) and len({row.shape for row in data}) > 1 and all(row.ndim == 1 for row in data):
            if not context:
                lengths = sorted({len(row) for row in data})
                raise RllcError(f"The rows of token ids have {lengths[0]} to {lengths[-1]} tokens.", "Give context=, to pack them, or equal rows.")
            data = _packed([_whole(row) for row in data], None, context, len(data) * max(map(len, data))).tokens
    rows = np.asarray(data)
    if rows.size == 0:
        raise RllcError("The data is empty.", "Give at least one context of token ids, or text.")
    if rows.ndim != 2:
        raise RllcError(f"The data has the shape {list(rows.shape)}, but token ids are [n, T].", "Give rows of token ids, or texts with a tokenizer.")
    rows = _whole(rows)
    if context > rows.shape[1]:
        raise RllcError(f"A context of {context} tokens was asked for, but the rows have {rows.shape[1]}.", "Give longer rows, or leave context out.")
    rows = rows[:, :context] if context else rows
    return TokenRows(rows, np.ones(rows.shape, dtype=bool))


def _whole(rows: NDArray[Any]) -> Ids:
    if rows.dtype.kind not in "iu":
        raise RllcError(f"The data is of type {rows.dtype}, but token ids are whole numbers.", "Give token ids [n, T], or texts with a tokenizer.")
    return rows.astype(np.int64)


def _checked(rows: Ids, limit: int, vocabulary: int) -> Ids:
    if rows.shape[1] < 2:
        raise RllcError("A context of 1 token predicts nothing.", "Give rows of at least 2 tokens.")
    if limit and rows.shape[1] > limit:
        raise RllcError(f"The contexts have {rows.shape[1]} tokens, more than the model's {limit}.", f"Give context={limit}, which cuts them.")
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or (vocabulary and high >= vocabulary):
        wrong = low if low < 0 else high
        known = f"the model knows 0 to {vocabulary - 1}" if vocabulary else "ids are 0 or more"
        raise RllcError(f"The data holds the token id {wrong}, but {known}.", "Tokenize with the model's own tokenizer.")
    return rows
