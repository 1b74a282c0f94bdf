"""nanoGPT, converted, computes the same logits; its heads are the same heads. The module has nanoGPT's parameter names, with and without biases."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rllc.checkpoints.importing import import_module, import_state
from rllc.core.errors import RllcError
from rllc.model.forward import logits

from .foreign_models import check_gradients, check_zeroing, mean_loss, perturbed, tokens


@dataclass
class Config:
    block_size: int = 14
    vocab_size: int = 37
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 24
    dropout: float = 0.1
    bias: bool = True


class Norm(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.n_embd))
        self.bias = nn.Parameter(torch.zeros(config.n_embd)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, 1e-5)


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.n_head, width = config.n_head, config.n_embd
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width, bias=config.bias), nn.Linear(width, width, bias=config.bias)
        self.register_buffer("bias", torch.ones(1, 1, config.block_size, config.block_size).tril())

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (z.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for z in self.c_attn(x).chunk(3, -1))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        scores = scores.masked_fill(self.bias[0, 0, : x.shape[1], : x.shape[1]] == 0, -torch.inf)
        return self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.n_embd
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width, bias=config.bias), nn.Linear(4 * width, width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(nn.functional.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2, self.mlp = Norm(config), Attention(config), Norm(config), MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "wpe": nn.Embedding(config.block_size, config.n_embd),
                "h": nn.ModuleList(Block(config) for _ in range(config.n_layer)),
                "ln_f": Norm(config),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


@pytest.fixture(params=[True, False], ids=["biases", "no biases"])
def model(request) -> GPT:
    return perturbed(GPT(Config(bias=request.param)))


def test_logits_are_the_originals(model):
    imported, ids = import_module(model), tokens(14)
    assert (imported.family, imported.shape.tied, imported.notes) == ("nanogpt", True, ())
    torch.testing.assert_close(logits(imported.shape, imported.params, ids), model(ids).detach(), rtol=0, atol=1e-4)
    imported = import_module(model.double())
    torch.testing.assert_close(logits(imported.shape, imported.params, ids), model(ids).detach(), rtol=0, atol=1e-9)


def test_heads_are_the_originals(model):
    model, ids = model.double(), tokens(14)
    imported = import_module(model)
    with torch.no_grad():
        check_zeroing("nanogpt", imported, model.state_dict(), model, 14)
    mean_loss(model(ids), ids).backward()
    check_gradients("nanogpt", imported, {key: p.grad for key, p in model.named_parameters()}, 14)


def test_a_checkpoint_of_a_compiled_model_is_read_by_its_model_args(model):
    state = {f"_orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    imported = import_state(state, {"model_args": asdict(model.config), "iter_num": 3})
    direct = import_module(model)
    assert imported.shape == direct.shape
    assert all(torch.equal(imported.params[name], direct.params[name]) for name in direct.params)


def test_biases_that_the_config_denies_are_named(model):
    with pytest.raises(RllcError, match=r"transformer\.h\.0\.attn\.c_attn\.bias and \d+ more are (missing|not known)"):
        import_state(model.state_dict(), asdict(model.config) | {"bias": not model.config.bias})
