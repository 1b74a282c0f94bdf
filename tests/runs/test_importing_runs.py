"""From a folder of foreign checkpoints to the page."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rllc.checkpoints.importing import import_module
from rllc.checkpoints.store import list_checkpoints, load, save
from rllc.core.errors import RllcError
from rllc.main import main
from rllc.model import forward as fw
from rllc.model.batch import TokenBatch
from rllc.model.forward import init_params
from rllc.model.shape import ModelShape
from rllc.records.store import Store
from rllc.runs.calibrating import Ask, _at_hand, _place, prepared
from rllc.runs.experiment import parse
from rllc.runs.layout import RunFolder
from rllc.runs.overview import describe_plan, describe_status
from rllc.runs.pipeline import run_experiment
from rllc.runs.progress import Reporter
from rllc.runs.sampling import OpenedUnit, Work
from rllc.runs.streaming import fetched

transformers = pytest.importorskip("transformers")
VOCABULARY = 280


@pytest.fixture(scope="module")
def pythia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of a tiny GPT-NeoX model, as transformers saves them."""
    folder = tmp_path_factory.mktemp("pythia")
    config = transformers.GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64
    )
    for step in (0, 40):
        torch.manual_seed(step)
        transformers.GPTNeoXForCausalLM(config).save_pretrained(folder / f"step{step}")
    return folder


def tables(pythia: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["import", str(pythia), "--context", "24"]) == 0
    return capsys.readouterr().out


def experiment(tiny: str, printed: str, keep: bool = True) -> str:
    """The tiny experiment on an imported model, whose converted checkpoints stay."""
    before, rest = tiny.split("[model]")
    printed = printed.replace("steps = [", f"keep = {str(keep).lower()}\nsteps = [")
    return before + printed + "\n[sampler]" + rest.split("[sampler]", 1)[1].replace("checkpoints = [0, 12]", "checkpoints = [0, 40]")


def test_what_is_printed_is_an_experiment_s_tables(pythia: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = tables(pythia, capsys)
    assert printed.startswith("# 2 layers of 2 heads; gpt_neox.\n")
    found = tomllib.loads(printed)
    assert found["imported"] == {"source": str(pythia), "steps": [0, 40]}
    assert (found["model"]["n_ctx"], found["model"]["parallel"], found["model"]["rotary_dim"]) == (24, True, 2)


def test_a_run_goes_from_foreign_checkpoints_to_the_page(
    pythia: Path, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_pictures: None
) -> None:
    text = experiment(tiny, tables(pythia, capsys))
    assert f"imported    2 checkpoints from {pythia}" in describe_plan(parse(text))
    folder = RunFolder(tmp_path / "run")
    run_experiment(text, folder.root, "report", None, None, quiet=True)
    assert folder.report.stat().st_size > 100_000
    assert [info.step for info in list_checkpoints(folder.checkpoints)] == [0, 40]
    tokens = torch.randint(0, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(0))
    for info in list_checkpoints(folder.checkpoints):
        shape, params, _ = load(info.folder)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(pythia / f"step{info.step}", dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(fw.logits(shape, params, tokens), theirs(tokens).logits, rtol=0, atol=1e-4)
    log = folder.log.read_text()
    assert "WARNING: of the last checkpoint on the mixture: The loss at the checkpoint is 5." in log  # it was never trained
    assert "Look at corpus.tokenizer" in log
    # once imported, the source is not needed
    run_experiment(text, folder.root, "train", None, None, quiet=True)
    assert log.count("Imported 2 checkpoints") == folder.log.read_text().count("Imported 2 checkpoints") == 1


def weights_in(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.rglob("weights.safetensors"))


def test_the_disk_stays_flat_and_the_numbers_are_the_same(
    pythia: Path, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held against step 40, which therefore stays; every other checkpoint is there in its turn alone."""
    refined = '[refinements.last]\ndata = "prose"\nreference = 40\n[behaviour]\nmeasures = ["behaviour"]'
    source = tmp_path / "source"
    shutil.copytree(pythia, source)
    torch.manual_seed(20)
    transformers.GPTNeoXForCausalLM.from_pretrained(source / "step0").save_pretrained(source / "step20")
    printed = tables(source, capsys)
    few = tiny.replace("[behaviour]", refined)
    few = few.replace('data = ["mixture"]', 'data = ["mixture", "last"]').replace('["heads", "full"]', '["1:0", "1:1"]')
    texts = {keep: experiment(few, printed, keep) for keep in (True, False)}
    most: list[int] = []

    def counting(*given: Any, **more: Any) -> Any:
        info = save(*given, **more)
        most.append(len(weights_in(tmp_path / "flat")))
        return info

    monkeypatch.setattr("rllc.runs.importing.save", counting)
    for keep, name in ((True, "kept"), (False, "flat")):
        run_experiment(texts[keep], tmp_path / name, "measure", None, None, quiet=True)
        run_experiment(texts[keep], tmp_path / name, "sample", None, None, quiet=True)
    kept, flat = (RunFolder(tmp_path / name) for name in ("kept", "flat"))
    assert most[-5:] == [1, 2, 2, 2, 2]  # step 40 for good; then 0 and 20, to be measured, and again to be sampled
    assert weights_in(kept.root) == ["step-00000000", "step-00000020", "step-00000040"]
    assert weights_in(flat.root) == ["step-00000040"]
    records = [{r.digest: r for r in Store(folder.records).records("sample")} for folder in (kept, flat)]
    assert len(records[0]) == 2 * 2 * 3 + 2 * 2 * 5
    assert records[0].keys() == records[1].keys()
    for digest, record in records[0].items():
        for trace, array in record.arrays.items():
            np.testing.assert_array_equal(array, records[1][digest].arrays[trace])
    assert "train    done" in describe_status(flat.root)
    # all is recorded: the source is not needed to go on
    source.rename(tmp_path / "away")
    run_experiment(texts[False], flat.root, "analyse", None, None, quiet=True)
    with pytest.raises(RllcError, match="were given back after their use"):
        load(flat.checkpoints / "step-00000000")
    # a wider grid fetches what it needs
    (tmp_path / "away").rename(source)
    count = len(most)
    wider = texts[False].replace("checkpoints = [0, 40]", "checkpoints = [0, 20, 40]")
    run_experiment(wider, flat.root, "sample", None, None, quiet=True)
    assert len(most) == count + 1
    assert weights_in(flat.root) == ["step-00000040"]


def test_what_is_imported_alone_is_known_and_given_back(pythia: Path, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, folder = experiment(tiny, tables(pythia, capsys), keep=False), RunFolder(tmp_path / "run")
    run_experiment(text, folder.root, "train", None, None, quiet=True)
    assert [(info.step, info.released) for info in list_checkpoints(folder.checkpoints)] == [(0, True), (40, True)]
    before = folder.log.read_text()
    run_experiment(text, folder.root, "train", None, None, quiet=True)
    assert "Importing" not in folder.log.read_text()[len(before) :]
    # a calibration fetches what it looks at, and gives it back
    with fetched(parse(text), folder, (40,), Reporter(True, None)):
        assert weights_in(folder.root) == ["step-00000040"]
    assert weights_in(folder.root) == []
    # kept after all
    run_experiment(experiment(tiny, tables(pythia, capsys)), folder.root, "train", None, None, quiet=True)
    assert weights_in(folder.root) == ["step-00000000", "step-00000040"]


def test_one_that_is_held_against_is_there_whoever_keeps_what(pythia: Path, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The main model's checkpoints are kept and the sibling's are not; then neither, and a calibration asks for both."""
    printed = tables(pythia, capsys)
    sibling = f'[siblings.other.imported]\nsource = "{pythia}"\nsteps = [0, 40]\n[refinements.against]\ndata = "prose"\nreference = "other"\n'
    start, end = tiny.index("[[sample]]"), tiny.index("[behaviour]")
    block = '[[sample]]\nparts = ["1:0"]\ndata = ["against"]\ncheckpoints = [40]\n'
    few = tiny[:start] + block + sibling + tiny[end:]
    kept, streamed = (experiment(few, printed, keep) for keep in (True, False))
    run_experiment(kept, tmp_path / "kept", "sample", None, None, quiet=True)
    assert len(Store(tmp_path / "kept" / "records").digests("sample")) == 1
    assert weights_in(tmp_path / "kept" / "checkpoints") == ["step-00000000", "step-00000040"]
    assert weights_in(tmp_path / "kept" / "siblings") == ["step-00000040"]
    run_experiment(streamed, tmp_path / "flat", "train", None, None, quiet=True)
    assert weights_in(tmp_path / "flat") == []
    ask = Ask(parts=("1:0",), data="against", checkpoints=(40,), quick=True, workers=1)
    place, steps = _place(prepared(parse(streamed), ask), RunFolder(tmp_path / "flat"), ask)
    with _at_hand(place, steps, Reporter(True, None)):
        assert weights_in(tmp_path / "flat") == ["step-00000040", "step-00000040"]
        unit = OpenedUnit(Work(place.folder, place.experiment, place.units(40, place.experiment)[0]))
        assert isinstance(next(unit.data.stream("origin")), TokenBatch)
    assert weights_in(tmp_path / "flat") == []


def test_other_weights_than_before_are_told(pythia: Path, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    shutil.copytree(pythia, source)
    text, folder = experiment(tiny, tables(source, capsys), keep=False), RunFolder(tmp_path / "run")
    run_experiment(text, folder.root, "train", None, None, quiet=True)
    shutil.rmtree(source / "step40")
    shutil.copytree(source / "step0", source / "step40")
    run_experiment(text, folder.root, "sample", None, None, quiet=True)
    assert "has other weights at step 40 than before" in folder.log.read_text()
    assert len({info.digest for info in list_checkpoints(folder.checkpoints)}) == 1


@pytest.mark.parametrize("kind", ["gemma3_text", "olmo2"])
def test_shapes_of_other_families_come_through_the_tables(kind: str, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
    own = {"gemma3_text": {"head_dim": 8, "sliding_window": 32, "layer_types": ["full_attention", "sliding_attention"]}}.get(kind, {})
    config = transformers.AutoConfig.for_model(kind, vocab_size=VOCABULARY, max_position_embeddings=64, pad_token_id=0, **sizes, **own)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for step in (0, 40):
        model.save_pretrained(tmp_path / "models" / f"step{step}")
    text = experiment(tiny, tables(tmp_path / "models", capsys))
    assert parse(text).model == import_module(model, n_ctx=24).shape
    run_experiment(text, tmp_path / "run", "train", None, None, quiet=True)
    shape, params, _ = load(list_checkpoints(RunFolder(tmp_path / "run").checkpoints)[1].folder)
    tokens = torch.randint(0, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(fw.logits(shape, params, tokens), model.eval()(tokens).logits, rtol=0, atol=1e-4)


def test_another_source_is_not_mixed_in(pythia: Path, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = experiment(tiny, tables(pythia, capsys))
    run_experiment(text, tmp_path / "run", "train", None, None, quiet=True)
    with pytest.raises(RllcError, match=r"were trained with another model, mixture or training settings"):
        run_experiment(text.replace(str(pythia), str(pythia) + "/step*"), tmp_path / "run", "train", None, None, quiet=True)


@pytest.mark.parametrize(("change", "sentence"), [
    (("d_mlp = 32", "d_mlp = 33"), r"step 0 is of another shape than the experiment's model: d_mlp is 32, not 33"),
    (("steps = [0, 40]", "steps = [0, 40, 41]"), r"has no checkpoint of step 41\. It has 0, 40"),
    (("[imported]", "[training]\nsteps = 5\n[imported]"), r"either trains a model or imports one"),
])  # fmt: skip
def test_what_does_not_fit_is_told(
    pythia: Path, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], sentence: str
) -> None:
    text = experiment(tiny, tables(pythia, capsys))
    assert change[0] in text
    with pytest.raises(RllcError, match=sentence):
        run_experiment(text.replace(*change), tmp_path / "run", "train", None, None, quiet=True)


def test_weights_that_are_not_finite_are_refused(pythia: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(pythia / "step0")
    with torch.no_grad():
        model.gpt_neox.layers[1].mlp.dense_h_to_4h.bias[3] = float("nan")
    model.save_pretrained(tmp_path / "step9")
    assert main(["import", str(tmp_path)]) == 2
    assert "blocks.1.mlp.b_in are NaN or infinite" in capsys.readouterr().err


def test_a_model_that_is_none_of_ours_says_what_still_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = transformers.PhiConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.PhiForCausalLM(config).save_pretrained(tmp_path / "phi")
    assert main(["import", str(tmp_path / "phi")]) == 2
    told = capsys.readouterr().err
    assert "attention and MLP of its layers share a norm" in told
    assert "any torch module, and name the parts by its parameters" in told


def test_files_that_do_not_say_what_they_are_of_and_a_config_that_does(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """State dicts of TransformerLens without cfg, as the paper's are: sizes and kinds come from the user, and wrong ones are told."""
    shape = ModelShape(n_layers=2, d_model=16, n_heads=2, d_head=8, d_vocab=VOCABULARY, n_ctx=24, positions="shortformer")
    for step in (0, 40):
        params = init_params(shape, step)
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        torch.save({name.replace("pos.", "pos_embed."): tensor for name, tensor in params.items()}, tmp_path / "checkpoints" / f"tiny_{step}.pth")
    source = str(tmp_path / "checkpoints" / "*.pth")
    assert main(["import", source]) == 2
    assert "says d_head = None" in capsys.readouterr().err
    sizes = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_head": 8, "d_vocab": VOCABULARY, "n_ctx": 24}
    said = sizes | {"attn_only": True, "positional_embedding_type": "shortformer", "normalization_type": "LN"}
    (tmp_path / "tiny.json").write_text(json.dumps(said))
    assert main(["import", source, "--config", str(tmp_path / "tiny.json")]) == 0
    printed = capsys.readouterr().out
    assert tomllib.loads(printed)["imported"] == {"source": source, "steps": [0, 40], "config": said}
    text = experiment(tiny, printed)
    folder = RunFolder(tmp_path / "run")
    run_experiment(text, folder.root, "train", None, None, quiet=True)
    for info in list_checkpoints(folder.checkpoints):
        found, stored, _ = load(info.folder)
        assert found == shape
        assert all(torch.equal(stored[name], tensor) for name, tensor in init_params(shape, info.step).items())
    with pytest.raises(RllcError, match="trained with another model"):
        run_experiment(text.replace('"LN"', '"LNPre"'), folder.root, "train", None, None, quiet=True)
