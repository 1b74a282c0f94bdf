from __future__ import annotations

import itertools

import pytest

from rllc.core.names import Part
from rllc.model.cost import bytes_per_variant, operations
from rllc.model.shape import ModelShape
from rllc.runs.experiment import parse
from rllc.runs.overview import describe_plan
from rllc.runs.plan import make_plan, pass_bytes, weight_bytes
from rllc.runs.progress import duration


def test_every_cell_is_planned_once_and_units_share_a_pass(tiny):
    experiment = parse(tiny)
    plan = make_plan(experiment)
    cells = list(plan.cells)
    assert len(cells) == len(set(cells)) == 5 * 5 + 2 * 2 * 5
    assert make_plan(experiment) == plan
    for unit in plan.units:
        layers = {part.atoms[0].layer for part in unit.parts}
        assert len(unit.parts) == 1 or (len(layers) == 1 and all(part.head for part in unit.parts))
    # two layers of heads and the full model at 5 checkpoints, two layers and an attention layer at 2 × 2 others
    assert len(plan.units) == 5 * 3 + 4 * 3
    assert plan.chain_steps == len(cells) * 2 * 20


def test_a_cell_named_twice_is_planned_once(tiny):
    twice = tiny + '\n[[sample]]\nparts = ["0:0"]\ndata = ["mixture"]\n'
    assert sorted(make_plan(parse(twice)).cells) == sorted(make_plan(parse(tiny)).cells)


def test_pieces_of_heads_share_a_pass_and_unions_do_not(tiny):
    experiment = parse(tiny.replace('parts = ["heads", "full"]', 'parts = ["0:0.Q", "0:1.Q", "0:0.V", "0:0+1:1", "1:0+1:1"]'))
    groups = {tuple(str(part) for part in unit.parts) for unit in make_plan(experiment).units if unit.step == 3}
    assert groups == {("0:0.Q", "0:1.Q"), ("0:0.V",), ("0:0+1:1",), ("1:0+1:1",)}


def test_the_chunk_follows_the_memory_budget(tiny):
    def chunk(text):
        return next(unit.chunk for unit in make_plan(parse(text)).units if unit.parts[0].head)

    assert chunk(tiny) == 4
    assert chunk(tiny.replace("[engine]", "[engine]\nchunk = 3")) == 3
    shape = ModelShape(n_layers=2, d_model=256, n_heads=8, d_head=32, d_vocab=5000, n_ctx=256)
    each = bytes_per_variant(shape, Part.of_head(0, 0), 8, 256)
    assert each > 8 * 256 * 256 * 4


def test_costs_grow_as_they_should():
    shape = ModelShape(n_layers=2, d_model=256, n_heads=8, d_head=32, d_vocab=5000, n_ctx=256)
    last, first, full = (operations(shape, Part.parse(text), 8, 256) for text in ("1:0", "0:0", "full"))
    assert last < first < full
    # the unembedding's two products rule the first layer; the last one's heads do without them, at a quarter of the price (DESIGN, The engine)
    read_out = 2 * 2 * 8 * 256 * 256 * 5000
    assert 0.6 < read_out / first < 1
    assert 0.2 < last / read_out < 0.3
    for small, large in itertools.pairwise([4, 8, 16]):
        assert operations(shape, Part.of_head(0, 0), large, 256) == 2 * operations(shape, Part.of_head(0, 0), small, 256)
        # what W_O does to the vocabulary is computed once a step, whatever the batch
        assert 1.8 < operations(shape, Part.of_head(1, 0), large, 256) / operations(shape, Part.of_head(1, 0), small, 256) < 2


PYTHIA = """
[imported]
source = "EleutherAI/pythia-1.4b"
steps = [143000]
[corpus]
tokenizer = "tokenizer.json"
[[corpus.sources]]
kind = "files"
paths = ["text"]
domain = "prose"
[mixture]
prose = 1
[model]
n_layers = 24
d_model = 2048
n_heads = 16
d_head = 128
d_vocab = 50304
n_ctx = 256
d_mlp = 8192
positions = "rotary"
rotary_dim = 32
parallel = true
unembed_bias = false
[sampler]
sampler = "sgld"
step_size = 1e-4
localization = 200
nbeta = 30
chains = 2
draws = 20
burn_in = 0
[sampling]
batch_size = 4
origin_batches = 4
[engine]
memory = 4000
[[sample]]
parts = ["12:3"]
"""


def test_a_model_of_a_billion_weights_is_planned_without_it():
    """Pythia-1.4B has 1,414,647,808 weights, by its authors' table; the operations by hand."""
    experiment = parse(PYTHIA)
    assert weight_bytes(experiment) == 4 * 1_414_647_808
    plan = make_plan(experiment)
    (unit,) = plan.units
    assert pass_bytes(experiment, plan) <= 4_000_000_000
    assert unit.chunk == 1
    tokens, d, m, v = 4 * 256, 2048, 8192, 50304
    layers = 11 * 2 * tokens * (4 * d * d + 2 * d * m + 256 * d)  # of those behind, forward; as much again for the gradient of activations
    head = 2 * tokens * (4 * d * 128 + 256 * 128)
    step = 2 * layers + 2 * 2 * tokens * d * v + 3 * head
    evaluations = 21 * 2 + 2 * 4  # 20 draws and w* for 2 chains, and twice 4 minibatches at w*
    assert plan.cost == pytest.approx(evaluations * step, rel=0.02)
    text = describe_plan(experiment, workers=2, rate=50e9)
    assert "5.66 GB of weights and up to" in text
    assert f"{duration(plan.cost / 50e9 / 2)} on 2 workers that do 50 GFLOP/s each" in text
