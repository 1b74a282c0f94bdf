"""Following a training: the same weights with and without, bit for bit, and the numbers that a measurement of the kept weights gives."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import rllc
from rllc.runs.callbacks import lightning_callback, trainer_callback

transformers = pytest.importorskip("transformers")
SMALL = {"chains": 2, "draws": 8, "burn_in": 2, "batch_size": 3, "origin_batches": 3}
STEPS = 6


def tokens(seed: int = 0, n: int = 12, length: int = 10):
    return torch.randint(0, 23, (n, length), generator=torch.Generator().manual_seed(seed))


def gpt2():
    """With dropout, whose masks come from torch's global generator."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=23, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(config)


def granite():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32}
    return transformers.GraniteForCausalLM(transformers.GraniteConfig(vocab_size=23, pad_token_id=0, attention_dropout=0.1, **sizes))


def trained(model, monitor: rllc.Monitor | None = None):
    """A loop that draws from all three global generators."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # what the monitor has to put back
    random.seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    model.train()
    for number in range(STEPS + 1):
        if monitor is not None:
            monitor.step(number, model)
            assert model.training
        scale = 1 + 0.1 * np.random.rand() + 0.1 * random.random()  # noqa: NPY002
        loss = scale * model(tokens(number), labels=tokens(number)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


@pytest.fixture(scope="module")
def alone():
    return trained(gpt2()), trained(granite())


class Writer:
    def __init__(self):
        self.seen = []

    def add_scalar(self, name, value, step):
        self.seen.append((name, value, step))


class Run:
    def __init__(self):
        self.seen, self.metrics = [], []

    def define_metric(self, name, step_metric):
        self.metrics.append((name, step_metric))

    def log(self, values):
        self.seen.append(values)


@pytest.mark.parametrize(("which", "when"), [(0, "afterwards"), (0, "now"), (0, "process"), (1, "afterwards"), (1, "now")])
def test_the_training_is_not_changed_by_a_bit_and_the_numbers_are_those_of_the_kept_weights(tmp_path: Path, alone, which: int, when: str) -> None:
    make = (gpt2, granite)[which]
    writer, run = Writer(), Run()
    data = {"a": tokens(100), "b": tokens(101)}
    monitor = rllc.Monitor(tmp_path / "watched", data, ["0:0", "0:1"], every=4, steps=[1], when=when, log_to=[writer, run], **SMALL)
    weights = trained(make(), monitor)
    results = monitor.close()
    assert weights.keys() == alone[which].keys()
    assert all(torch.equal(weights[name], alone[which][name]) for name in weights)
    assert [r.step for r in results.cells] == [0] * 4 + [1] * 4 + [4] * 4
    at_origin = [r for r in results.cells if r.step == 0]
    direct = [r for name, values in data.items() for r in rllc.estimate(make(), values, ["0:0", "0:1"], data_name=name, **SMALL).cells]
    for watched, expected in zip(at_origin, direct, strict=True):
        assert (watched.part, watched.data) == (expected.part, expected.data)
        # the second process has one thread, as this test has
        np.testing.assert_array_equal(watched.traces.losses, expected.traces.losses)
    table = pd.read_csv(tmp_path / "watched" / "curves.csv")
    assert len(table) == 12
    assert len(writer.seen) == 2 * len(run.seen) == 2 * sum(not r.outcome.refused for r in results.cells)
    assert ("llc/a/0:1", results.cells[1].llc, 0) in writer.seen
    assert {"llc/a/0:1": results.cells[1].llc, "llc/a/0:1/stderr": results.cells[1].stderr, "llc/step": 0} in run.seen
    assert run.metrics == [("llc/*", "llc/step")]


def test_a_refused_cell_is_logged_nowhere_as_a_number(tmp_path: Path) -> None:
    writer = Writer()
    monitor = rllc.Monitor(tmp_path, tokens(), "0:0", steps=[0], log_to=[writer], **SMALL)
    model = gpt2()
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] = float("nan")
    monitor.step(0, model)
    (r,) = monitor.close().cells
    assert r.outcome.refused
    assert writer.seen == []


def test_a_step_is_kept_once_and_only_where_the_schedule_asks(tmp_path: Path) -> None:
    with rllc.Monitor(tmp_path, tokens(), "0:0", steps=[2], **SMALL) as monitor:
        model = gpt2()
        for number in (0, 1, 2, 2, 3):
            monitor.step(number, model)
        assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000002"]
    assert [r.step for r in monitor.results.cells] == [2]


@pytest.mark.parametrize(("given", "sentence"), [
    ({"every": 0}, r"The monitor has no step to look at"),
    ({"every": 2, "when": "later"}, r"when is 'later'\. Choose one of: afterwards, now, process"),
    ({"every": 2, "drwas": 3}, r"There is no setting 'drwas'\. Perhaps you meant 'draws'"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_the_training(tmp_path: Path, given: dict, sentence: str) -> None:
    with pytest.raises(rllc.RllcError, match=sentence):
        rllc.Monitor(tmp_path, tokens(), **given)


def test_a_second_process_needs_a_model_that_converts(tmp_path: Path) -> None:
    monitor = rllc.Monitor(tmp_path, tokens(), "0:0", steps=[0], when="process", **SMALL)
    with pytest.raises(rllc.RllcError, match=r"this one is sampled as it is\. Set when=\"afterwards\""):
        monitor.step(0, granite())


@pytest.mark.filterwarnings("ignore")  # torch's own on compiling
def test_wrappers_are_taken_off_and_spread_weights_refused(tmp_path: Path) -> None:
    model = gpt2()
    wrapped = nn.DataParallel(torch.compile(model))
    with rllc.Monitor(tmp_path / "a", tokens(), "0:0", steps=[0], **SMALL) as monitor:
        monitor.step(0, wrapped)
    (r,) = monitor.results.cells
    np.testing.assert_array_equal(r.traces.losses, rllc.estimate(gpt2(), tokens(), "0:0", **SMALL).traces.losses)
    share = nn.Module()
    share._flat_param = nn.Parameter(torch.zeros(3))
    with pytest.raises(rllc.RllcError, match=r"spread over processes \(_flat_param\).*full checkpoints"):
        rllc.Monitor(tmp_path / "b", tokens(), "0:0", steps=[0], **SMALL).step(0, share)


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {"input_ids": tokens()[index], "labels": tokens()[index]}


@pytest.mark.filterwarnings("ignore")  # the trainers' own, which change from version to version
@pytest.mark.parametrize("when", ["afterwards", "now"])
def test_a_training_by_the_trainer_is_the_same_and_its_weights_are_those_sampled(tmp_path: Path, when: str) -> None:
    pytest.importorskip("accelerate")

    def run(*callbacks):
        model = gpt2()
        settings = {"max_steps": 3, "per_device_train_batch_size": 4, "use_cpu": True, "report_to": [], "save_strategy": "no", "seed": 3}
        arguments = transformers.TrainingArguments(str(tmp_path / "trainer"), logging_strategy="no", disable_tqdm=True, **settings)
        transformers.Trainer(model, arguments, train_dataset=Rows(), callbacks=list(callbacks)).train()
        return model.state_dict()

    monitor = rllc.Monitor(tmp_path / "watched", tokens(), ["0:0"], steps=[0, 2, 3], when=when, **SMALL)
    watched, alone = run(trainer_callback(monitor)), run()
    assert all(torch.equal(watched[name], alone[name]) for name in alone)
    assert not torch.equal(watched["transformer.wte.weight"], gpt2().state_dict()["transformer.wte.weight"])
    assert [r.step for r in monitor.results.cells] == [0, 2, 3]
    final = gpt2()
    final.load_state_dict(watched)
    for r, model in ((monitor.results.cells[0], gpt2()), (monitor.results.cells[2], final)):
        np.testing.assert_array_equal(r.traces.losses, rllc.estimate(model, tokens(), "0:0", **SMALL).traces.losses)


@pytest.mark.filterwarnings("ignore")
def test_a_training_by_lightning_is_the_same_and_its_weights_are_those_sampled(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Wrapper(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = gpt2()

        def training_step(self, batch, _):
            return self.model(**batch).loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2)

    def run(*callbacks):
        torch.manual_seed(5)
        wrapper = Wrapper()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(accelerator="cpu", max_steps=3, callbacks=list(callbacks), default_root_dir=tmp_path / "lightning", **quiet)
        trainer.fit(wrapper, torch.utils.data.DataLoader(Rows(), batch_size=4, shuffle=True))
        return wrapper.model.state_dict()

    monitor = rllc.Monitor(tmp_path / "watched", tokens(), ["0:0"], steps=[0, 3], when="now", **SMALL)
    watched, alone = run(lightning_callback(monitor)), run()
    assert all(torch.equal(watched[name], alone[name]) for name in alone)
    final = gpt2()
    final.load_state_dict(watched)
    assert [r.step for r in monitor.results.cells] == [0, 3]
    for r, model in zip(monitor.results.cells, (gpt2(), final), strict=True):
        np.testing.assert_array_equal(r.traces.losses, rllc.estimate(model, tokens(), "0:0", **SMALL).traces.losses)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "board"))
    with rllc.Monitor(tmp_path / "watched", tokens(), "0:0", steps=[0, 5], log_to=[writer], **SMALL) as monitor:
        monitor.step(0, gpt2())
        monitor.step(5, gpt2())
    writer.close()
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    told = [(event.step, event.value) for event in board.Scalars("llc/data/0:0")]
    assert told == [(r.step, pytest.approx(r.llc, rel=1e-6)) for r in monitor.results.cells]
