"""What README and the pages tell one to type is what the program takes: Python is run on small stand-ins, commands are parsed, TOML is read."""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
import inspect
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rllc import api
from rllc.core.errors import RllcError
from rllc.runs import how, monitoring
from rllc.runs.experiment import Experiment, preset
from rllc.runs.mapping import settings_from

from .written import PAGES, ROOT, blocks, commands, wrong_names

SMALL = {"chains": 2, "draws": 6, "batch_size": 2, "origin_batches": 3}
LETTERS = "abcdefghijklmnopqrstuvwxyz ()"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def imports_of(code: str) -> str:
    """The imports of a block that need no network: later blocks of the page stand on them."""
    lines = [ast.unparse(node) for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(line for line in lines if "transformers" not in line)


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def pages_with(language: str) -> list[Any]:
    return [pytest.param(page, id=relative(page)) for page in PAGES if blocks(page, language)]


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the pages speak of without making it: a model with its tokenizer, texts, ids, and a folder of checkpoints."""
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    letters = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token=" "))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, unk_token=" ", eos_token=" ")
    sizes = {"n_layer": 2, "n_head": 8, "n_embd": 16, "n_positions": 256, "vocab_size": len(LETTERS), "bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    folder = tmp_path_factory.mktemp("series")
    for step in (0, 100):
        model.save_pretrained(folder / f"step-{step}")
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list(LETTERS), size=700)) for _ in range(4)]
    ids = torch.from_numpy(rng.integers(len(LETTERS), size=(12, 16)))
    batches = [ids[:4]] * 5
    module = torch.nn.Module()
    return {
        "model": model, "smaller": model,
        "tokenizer": tokenizer, "texts": texts, "ids": ids, "code": ids, "prose": ids.flip(1), "folder": folder, "module": module,
        "batches": batches, "optimizer": torch.optim.SGD(model.parameters(), lr=1e-3), "brackets": [27, 28],
    }  # fmt: skip


@pytest.mark.parametrize("file", pages_with("python"))
def test_python_of_a_page_runs(file: Path, stand_ins: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Blocks run in order, in one namespace, with few draws; what needs the network is compiled, and its names are checked."""

    def few(given: Mapping[str, Any]) -> how.How:
        stopping = {} if given.get("stopping") is None else {"stopping": dataclasses.replace(given["stopping"], max_draws=12)}
        return how.how_from(SMALL | dict(given) | {"draws": 6} | stopping)

    for module in (api, monitoring):
        monkeypatch.setattr(module, "how_from", few)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stand_ins["folder"], tmp_path / "runs" / "mine" / "checkpoints")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text, "body": text}) + "\n" for text in stand_ins["texts"]))
    pd.DataFrame({"text": stand_ins["texts"]}).to_parquet(tmp_path / "texts.parquet")
    namespace = {"__name__": "page"} | stand_ins | {"model": copy.deepcopy(stand_ins["model"])}
    if file.name in ("models.md", "data.md"):  # where code and prose are texts, beside a tokenizer
        namespace |= {"code": stand_ins["texts"], "prose": stand_ins["texts"][::-1]}
    namespace["optimizer"] = torch.optim.SGD(namespace["model"].parameters(), lr=1e-3)
    found = blocks(file, "python")
    for block in found:
        assert not wrong_names(block.text), f"{relative(file)}, line {block.line}"
        # line numbers of a failure are those of the file
        compiled = compile("\n" * (block.line - 1) + block.text, relative(file), "exec")
        if block.not_run:
            compiled = compile(imports_of(block.text), relative(file), "exec")
        exec(compiled, namespace)


def test_most_python_of_the_pages_runs() -> None:
    found = [block for page in PAGES for block in blocks(page, "python")]
    assert sum(not block.not_run for block in found) > 0.7 * len(found)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parses a command line of rllc and says which verb would have been called with what."""
    from rllc import main

    calls: list[tuple[str, dict[str, Any]]] = []

    def recorded(verb: str, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> None:
            calls.append((verb, inspect.signature(function).bind(*args, **given).arguments))

        return call

    monkeypatch.setattr(main, "VERBS", {verb: recorded(verb, function) for verb, function in main.VERBS.items()})

    def parse(arguments: list[str]) -> tuple[str, dict[str, Any]]:
        calls.clear()
        assert not main.main(arguments)
        return calls[0]

    return parse


@pytest.mark.parametrize("file", pages_with("console"))
def test_commands_of_a_page_are_taken(file: Path, parsed: Any) -> None:
    for command in commands(file):
        program, *arguments = shlex.split(command)
        if program == "rllc":
            verb, given = parsed(arguments)
            assert verb == arguments[0]
            for path in (value for value in given.values() if isinstance(value, Path) and value.parts[:1] == ("experiments",)):
                assert (ROOT / path).is_file(), command
        elif program == "make":
            targets = [argument for argument in arguments if "=" not in argument]
            assert targets, command
            assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets), command
        elif program == "python":
            assert (ROOT / arguments[0]).is_file(), command
        elif program == "pip":
            named = re.findall(r"\[([\w,]+)\]", command)
            assert all(extra in EXTRAS for group in named for extra in group.split(",")), command
        elif program == "sbatch" or "/" in program:
            assert any((ROOT / word).is_file() for word in (program, *arguments) if word.endswith(".sh")), command
        else:
            assert program in {"xdg-open", "open", "git", "cd"}, command


def test_a_wrong_command_is_found(parsed: Any) -> None:
    for wrong in (["sampel", "a.toml"], ["run", "a.toml", "--outt", "b"], ["compare", "runs/demo"]):
        with pytest.raises(SystemExit):
            parsed(wrong)


@pytest.mark.parametrize("file", [pytest.param(page, id=relative(page)) for page in PAGES if page.name not in {"log.md", "changelog.md"}])
def test_verbs_and_flags_in_the_text_exist(file: Path) -> None:
    from rllc.main import VERBS

    for spoken in re.findall(r"(?<!`)`rllc ([^`]+)`(?!`)", file.read_text(encoding="utf-8")):
        verb, *rest = spoken.split()
        if verb.isupper():
            continue
        if verb.startswith("-"):
            assert verb == "--help"
            continue
        assert verb in VERBS, f"{relative(file)}: rllc {spoken}"
        taken = {name.replace("_", "-") for name in inspect.signature(VERBS[verb]).parameters} | {"help"}
        assert {word[2:] for word in rest if word.startswith("--")} <= taken, f"{relative(file)}: rllc {spoken}"


def merged(table: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Tables join, sources are added, everything else is replaced, and so is the mixture, whose shares belong together."""
    result = dict(table)
    for name, value in added.items():
        old = result.get(name)
        if name == "sources" and isinstance(old, list):
            result[name] = [*old, *value]
        else:
            result[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) and name != "mixture" else value
    return result


@pytest.mark.parametrize("file", pages_with("toml"))
def test_tables_of_a_page_are_those_of_an_experiment(file: Path) -> None:
    """The tables of a page, one after the other, change the demo's experiment into one that is read without an error."""
    table = tomllib.loads(preset("demo"))
    table["model"].setdefault("d_vocab", table["corpus"]["vocabulary"])
    for block in blocks(file, "toml"):
        table = merged(table, tomllib.loads(block.text))
        if file.name == "README.md":  # whose words, not whose block, give the new domain its share
            table["mixture"] = {"letters": 0.5, "code": 0.5}
    assert isinstance(settings_from(Experiment, table), Experiment)


def test_a_wrong_key_is_found() -> None:
    table = merged(tomllib.loads(preset("demo")), {"stopping": {"target": 0.05}})
    with pytest.raises(RllcError):
        settings_from(Experiment, table)
