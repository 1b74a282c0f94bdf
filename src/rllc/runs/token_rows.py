"""From what a notebook has to rows of token ids: ids as they are, texts through a tokenizer, a column of a data set."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rllc.core.errors import RllcError
from rllc.corpus.tokenizer import bos_id, encode_documents, parse_tokenizer

if TYPE_CHECKING:
    from jaxtyping import Int

Ids = NDArray[np.int64]
_COLUMNS = ("input_ids", "text")  # what data sets call ids and text, in the order in which they are looked for
_LONGEST = 1024  # tokens of a context where neither user nor model asks for fewer


def is_dataset(data: Any) -> bool:
    """Whether it is a data set with columns, as the datasets library makes them."""
    return hasattr(data, "column_names") and hasattr(data, "__getitem__")


def is_texts(data: Any) -> bool:
    """Whether it is a sequence of texts."""
    return isinstance(data, Sequence) and not isinstance(data, str) and len(data) > 0 and isinstance(data[0], str)


def token_rows(data: Any, *, tokenizer: Any = None, column: str = "", context: int = 0, limit: int = 0, vocabulary: int = 0) -> Int[Ids, "n T"]:
    """Contexts of equal length from any of the forms that `rllc.estimate` takes.

    Ids [n, T] stay as they are, cut to `context` where one is given. Texts, and rows of ids of different lengths where a `context` is given, are
    packed: the documents one after the other, each with the tokenizer's BOS before it where it has one, cut into contexts that begin with BOS too;
    what does not fill the last one is left out.

    Args:
        data: ids [n, T] as tensor, array or lists; a sequence of texts; a data set with columns.
        tokenizer: of texts.
        column: of a data set; "input_ids" or "text" unless given.
        context: tokens T; 0 for those of the rows, and of texts for the model's, at most 1024.
        limit: the model's longest context; 0 where it is not known.
        vocabulary: the model's; 0 where it is not known.

    Raises:
        RllcError: the data is empty or in none of these forms, a context is longer than the model's, or an id lies beyond the vocabulary.
    """
    if isinstance(data, str):
        raise RllcError("The data is one string.", "Give a sequence of texts: [text].")
    if is_dataset(data):
        data = _column(data, column)
    elif column:
        raise RllcError(f"column={column!r} is given, but the data is a {type(data).__name__} without columns.", "Leave column out.")
    if limit and context > limit:
        raise RllcError(f"A context of {context} tokens is longer than the model's {limit}.", f"Set context to {limit} or less.")
    if is_texts(data):
        documents, bos = _encoded(list(data), tokenizer)
        rows = _packed(documents, bos, context or min(limit or _LONGEST, _LONGEST))
    else:
        rows = _rows(data, context)
    return _checked(rows, limit, vocabulary)


def _column(data: Any, column: str) -> Any:
    names = [str(name) for name in data.column_names]
    chosen = column or next((name for name in _COLUMNS if name in names), "")
    if chosen not in names:
        near = difflib.get_close_matches(column, names, 1)
        problem = f"The data set has no column {column!r}" if column else f"The data set has neither a column {' nor '.join(_COLUMNS)}"
        raise RllcError(f"{problem}; it has {', '.join(names) or 'none'}.", f'Give column="{near[0] if near else (names or ["text"])[0]}".')
    return list(data[chosen])


def _encoded(texts: list[str], tokenizer: Any) -> tuple[Iterable[Ids], int | None]:
    """Ids of every text without special tokens, and the BOS, if there is one."""
    import tokenizers

    if tokenizer is None:
        raise RllcError("The data is text, and there is no tokenizer.", "Give tokenizer=, of the model, or token ids.")
    if isinstance(tokenizer, tokenizers.Tokenizer):
        # a copy, since padding and cutting would have to be turned off in the user's
        own = parse_tokenizer(tokenizer.to_str())
        try:
            bos = bos_id(own)
        except RllcError:
            bos = None
        return encode_documents(own, texts), bos
    if not callable(tokenizer):
        raise RllcError(f"The tokenizer is a {type(tokenizer).__name__}.", "Give one of the transformers or the tokenizers library.")
    encode: Any = tokenizer
    found = encode(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [np.asarray(ids, dtype=np.int64) for ids in found], getattr(tokenizer, "bos_token_id", None)


def _packed(documents: Iterable[Ids], bos: int | None, context: int) -> Ids:
    before = np.array([] if bos is None else [bos], dtype=np.int64)
    stream = np.concatenate([np.concatenate([before, document]) for document in documents] or [before])
    each = context if bos is None else context - 1
    if each < 1 or context < 2:
        raise RllcError(f"A context of {context} tokens predicts nothing.", "Use at least 2.")
    rows: list[Ids] = []
    start = 0
    while start + each <= len(stream):
        if bos is not None and stream[start] == bos:  # the document's own is the row's
            start += 1
            if start + each > len(stream):
                break
        rows.append(np.concatenate([before, stream[start : start + each]]))
        start += each
    if not rows:
        raise RllcError(f"The text has {len(stream)} tokens, fewer than one context of {context}.", "Give more text, or a smaller context.")
    return np.stack(rows)


def _rows(data: Any, context: int) -> Ids:
    if isinstance(data, torch.Tensor):
        data = data.detach().cpu().numpy()
    elif not isinstance(data, np.ndarray):
        data = [np.asarray(row) for row in data] if isinstance(data, Iterable) else data
        if isinstance(data, list) and len({row.shape for row in data}) > 1 and all(row.ndim == 1 for row in data):
            if not context:
                lengths = sorted({len(row) for row in data})
                raise RllcError(f"The rows of token ids have {lengths[0]} to {lengths[-1]} tokens.", "Give context=, to pack them, or equal rows.")
            data = _packed([_whole(row) for row in data], None, context)
    rows = np.asarray(data)
    if rows.size == 0:
        raise RllcError("The data is empty.", "Give at least one context of token ids, or text.")
    if rows.ndim != 2:
        raise RllcError(f"The data has the shape {list(rows.shape)}, but token ids are [n, T].", "Give rows of token ids, or texts with a tokenizer.")
    rows = _whole(rows)
    if context > rows.shape[1]:
        raise RllcError(f"A context of {context} tokens was asked for, but the rows have {rows.shape[1]}.", "Give longer rows, or leave context out.")
    return rows[:, :context] if context else rows


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
