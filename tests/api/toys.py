"""Small models for the notebook API: ours, a quadratic whose answer is known, and stand-ins for what reads foreign models."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rllc.checkpoints.foreign import NotImportable
from rllc.model.forward import init_params
from rllc.model.shape import ModelShape
from rllc.model.slices import slices

SHAPE = ModelShape(n_layers=2, d_model=8, n_heads=2, d_head=4, d_vocab=11, n_ctx=6)
SMALL = {"chains": 2, "draws": 8, "burn_in": 2, "batch_size": 3, "origin_batches": 3}


class Ours:
    """What `rllc.checkpoints.importing` returns, as far as the API looks."""

    def __init__(self, seed=0, shape=SHAPE, notes=()):
        self.shape, self.params, self.notes = shape, init_params(shape, seed, torch.float32), notes


def tokens(n=12, length=6, seed=0):
    return torch.randint(0, SHAPE.d_vocab, (n, length), generator=torch.Generator().manual_seed(seed))


class Bowl(nn.Module):
    """½ Σ h_i w_i², with its minimum at w* = 0."""

    def __init__(self, curvature):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(len(curvature), dtype=torch.float64))
        self.other = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.register_buffer("h", torch.as_tensor(curvature, dtype=torch.float64))


def height(module, batch):
    return 0.5 * (module.h * module.w**2).sum() + 0.5 * (module.other**2).sum() + 0 * batch.sum()


class Foreign(nn.Module):
    """Our transformer as somebody else's module: a config, parameters by other names, logits."""

    def __init__(self, seed=0):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=SHAPE.d_vocab, max_position_embeddings=SHAPE.n_ctx)
        for name, tensor in init_params(SHAPE, seed, torch.float32).items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(tensor.clone()))

    def params(self):
        return {name: getattr(self, name.replace(".", "_")) for name in SHAPE.tensors()}

    def forward(self, batch):
        from rllc.model import forward as fw

        params = self.params()
        x = fw.run_blocks(SHAPE, params, fw.embed(SHAPE, params, batch))
        return fw.norm(SHAPE, params, "ln_final", x)[0] @ params["unembed.W_U"] + params["unembed.b_U"]


def entropy(module, batch):
    logits = module(batch)[:, :-1]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1))


def stand_ins(monkeypatch, *, importable=True):
    """Put modules in the place of those that read foreign models."""
    calls = []

    def import_module(module):
        calls.append("import")
        if not importable:
            raise NotImportable("A Foreign cannot be imported: it is strange.", "Leave it.")
        imported = Ours(notes=("Read by a stand-in.",))
        imported.params = {name: tensor.detach().clone() for name, tensor in module.params().items()}
        return imported

    def head_slices(module, part):
        names = [s.tensor.replace(".", "_") + ("" if s.head is None else f"[{s.head}]") for s in slices(SHAPE, part)]
        return SimpleNamespace(names=tuple(names), notes=(f"{part} was found by a stand-in.",))

    def recognise(module):
        return SimpleNamespace(n_layers=SHAPE.n_layers, n_heads=SHAPE.n_heads)

    def language_loss(module, batch):
        calls.append("loss")
        return entropy(module, batch)

    for name, members in {
        "importing": {"import_module": import_module, "NotImportable": NotImportable},
        "head_slices": {"head_slices": head_slices},
        "recognise": {"recognise": recognise},
        "calling": {"language_loss": language_loss, "vocabulary_of": lambda module: module.config.vocab_size},
    }.items():
        fake = ModuleType(f"rllc.checkpoints.{name}")
        fake.__dict__.update(members)
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
    return calls
