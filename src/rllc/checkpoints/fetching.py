"""Checkpoints from the Hugging Face hub by name: fetched once, in the one weight format that is needed, and forgotten where the disk is small."""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rllc.core.errors import RllcError

_FORMATS = (  # the whole model at the top of the repository, best first
    r"model(-\d+-of-\d+)?\.safetensors",
    r"pytorch_model(-\d+-of-\d+)?\.bin",
    r"[^/]+\.safetensors",
    r"[^/]+\.(bin|pt|pth|ckpt)",
)
_WEIGHTS = re.compile(r"\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|onnx|gguf|ot)(\.index\.json)?$")
_BESIDE = ("*.json", "*.txt", "tokenizer*")  # config and tokenizer


def fetch(repo: str, revision: str | None = None, *, patterns: Sequence[str] | None = None, cache: Path | None = None) -> Path:
    """The folder of a repository's files in the hub's cache, downloaded where they are not there yet; an interrupted download goes on.

    Args:
        repo: "owner/name".
        revision: a branch, tag or commit; the main branch by default.
        patterns: which files, as globs over their paths in the repository; by default the weights at its top, in safetensors where there are any
            and else as torch files, with config and tokenizer.
        cache: where the hub's cache is; the usual place by default.

    Without network, or with HF_HUB_OFFLINE set, what the cache holds is taken.
    Raises RllcError where there is no such repository, revision or file, where the repository is closed to the user, and where neither the network
    nor the cache can give it.
    """
    import huggingface_hub

    what = name_of(repo, revision)
    with _told(what):
        names = None if patterns is not None else _names(repo, revision, cache)
        chosen = None if names is None else choose(names, what)
        wanted = [glob.escape(name) for name in chosen] if chosen is not None else patterns
        folder = Path(
            huggingface_hub.snapshot_download(repo, revision=revision, cache_dir=cache, allow_patterns=None if wanted is None else list(wanted))
        )
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()]
    if patterns is not None and not any(fnmatch.fnmatch(name, pattern) for name in found for pattern in patterns):
        raise RllcError(f"No file of {what} fits {', '.join(patterns)}.", "Look up the names of its files on its page of the hub.")
    if patterns is None and names is None:
        choose(found, f"The cached copy of {what}")
    return folder


def choose(names: Sequence[str], what: str) -> list[str]:
    """Of a repository's files: its weights in one format, and what is beside them. Raises RllcError where no weights are at its top."""
    for form in _FORMATS:
        weights = [name for name in names if re.fullmatch(form, name) and not re.match(r"(training_args|optimizer|scheduler|rng_state)", name)]
        if weights:
            break
    else:
        deeper = [name for name in names if _WEIGHTS.search(name)]
        listed = f"it holds {', '.join(deeper[:5])}{' and more' if len(deeper) > 5 else ''}" if deeper else "it holds none that rllc reads"
        raise RllcError(f"{what} has no weights at its top: {listed}.", 'Name the files by patterns, such as patterns=["checkpoints/*_500.pth"].')
    index = {weight.rpartition(".")[2] for weight in weights}
    beside = [name for name in names if "/" not in name and any(fnmatch.fnmatch(name, pattern) for pattern in _BESIDE) and name not in weights]
    return weights + [name for name in beside if not _WEIGHTS.search(name) or name.removesuffix(".index.json").rpartition(".")[2] in index]


def cached_commits(repo: str, cache: Path | None = None) -> frozenset[str]:
    """The commits of a repository of which the hub's cache holds anything."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(cache or constants.HF_HUB_CACHE).repos  # which is where downloads go by default
    except CacheNotFound:
        return frozenset()
    return frozenset(entry.commit_hash for found in repos if (found.repo_id, found.repo_type) == (repo, "model") for entry in found.revisions)


def forget(folder: Path, cache: Path | None = None) -> int:
    """Remove a fetched folder from the hub's cache, by the hub's own means: files that other revisions share stay. Gives the bytes freed."""
    from huggingface_hub import constants, scan_cache_dir

    strategy = scan_cache_dir(cache or constants.HF_HUB_CACHE).delete_revisions(folder.name)
    strategy.execute()
    return strategy.expected_freed_size


def name_of(repo: str, revision: str | None) -> str:
    """How a repository at a revision is written.

    >>> name_of("EleutherAI/pythia-160m", "step1000"), name_of("openai-community/gpt2", None)
    ('EleutherAI/pythia-160m@step1000', 'openai-community/gpt2')
    """
    return repo if revision is None else f"{repo}@{revision}"


def _names(repo: str, revision: str | None, cache: Path | None) -> list[str] | None:
    """The files of a repository: from the hub, else from the listing in the cache; None where neither can be had."""
    from huggingface_hub import HfApi, get_cached_repo_tree
    from huggingface_hub.errors import (
        CachedRepoTreeNotFoundError,
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # the base of all that the hub's http client raises
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return HfApi().list_repo_files(repo, revision=revision)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except (OfflineModeIsEnabled, HfHubHTTPError, HTTPError, OSError):
        pass
    try:
        return [file.path for file in get_cached_repo_tree(repo, revision=revision, cache_dir=cache)]
    except CachedRepoTreeNotFoundError:
        return None


@contextmanager
def _told(what: str) -> Iterator[None]:
    """The hub's errors as sentences."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise RllcError(
            f"{what} is gated: its owner asks for a login.", "Accept its terms on its page of the hub, then run `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RllcError(
            f"The hub has no repository for {what}, or it is private.", "Check the name; for a private one run `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RllcError(f"{what} does not exist: the repository has no such revision.", "Look up its branches and tags on its page.") from error
    except errors.HFValidationError as error:
        raise RllcError(f"{what} is no name of a repository.", 'Write "owner/name", or "owner/name@revision".') from error
    except errors.IncompleteSnapshotError as error:
        raise RllcError(
            f"Of {what} the cache holds a part only, and the hub cannot be reached.", "Run again with network; the download goes on from there."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise RllcError(
            f"{what} is not in the cache, and the hub cannot be reached.",
            "Connect, and unset HF_HUB_OFFLINE where it is set; or copy the cache of a machine that has it, and name it by HF_HOME.",
        ) from error
    except (errors.HfHubHTTPError, errors.HTTPError, OSError) as error:  # pyright: ignore[reportPrivateImportUsage]
        raise RllcError(
            f"{what} could not be fetched: {' '.join(str(error).split())[:200]}.", "Run again; the download goes on from there."
        ) from error
