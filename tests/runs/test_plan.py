from __future__ import annotations

import itertools

from rllc.core.names import Part
from rllc.model.cost import bytes_per_variant, operations
from rllc.model.shape import ModelShape
from rllc.runs.experiment import parse
from rllc.runs.plan import make_plan


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
