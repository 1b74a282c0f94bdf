"""Parameters and slices of any module by name, as a lens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rllc.core.errors import RllcError
from rllc.model.module_part import pieces


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5)
        self.tied.weight = self.fc2.weight
        self.counts = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("scale", torch.ones(2))


@pytest.fixture
def module():
    return Small().double()


INDICES = {
    "fc1.weight[:, 2:4]": (slice(None), slice(2, 4)),
    "fc1.weight[3]": (3,),
    "fc1.weight[-1, 1:6:2]": (-1, slice(1, 6, 2)),
    "fc1.weight[ :2 ,-3: ]": (slice(2), slice(-3, None)),
    "fc1.weight[4,5]": (4, 5),
    "fc1.bias[::3]": (slice(None, None, 3),),
}


@pytest.mark.parametrize("name", INDICES)
def test_a_slice_is_what_python_takes_and_is_put_back_there(module, name):
    (piece,) = pieces(module, [name])
    whole = module.get_parameter(name.partition("[")[0]).detach()
    assert torch.equal(piece.value, whole[INDICES[name]][None])
    changed = piece.put(whole, piece.value[0] + 1)
    by_hand = whole.clone()
    by_hand[INDICES[name]] += 1
    assert torch.equal(changed, by_hand)  # put-get and the rest unchanged
    assert torch.equal(piece.put(changed, piece.value[0]), whole)  # get-put
    assert not torch.equal(changed, whole)


def test_disjoint_slices_commute(module):
    one, other = pieces(module, ["fc1.weight[:, :2]", "fc1.weight[2:, 2:]"])
    whole = module.fc1.weight.detach()
    a, b = one.value[0] + 1, other.value[0] - 1
    assert torch.equal(one.put(other.put(whole, b), a), other.put(one.put(whole, a), b))


def test_a_value_is_a_copy(module):
    (piece,) = pieces(module, ["fc1.weight"])
    before = module.fc1.weight.detach().clone()
    piece.value.zero_()
    assert torch.equal(module.fc1.weight, before)


@pytest.mark.parametrize("names", [["fc2.weight"], ["tied.weight"], ["tied.weight", "fc2.weight"], ["fc2.weight", "tied.weight[:]", "fc2.weight"]])
def test_a_tied_weight_is_one_piece_under_the_name_that_was_asked_for(module, names):
    (piece,) = pieces(module, names)
    assert piece.name == piece.tensors[0] == names[0]
    assert set(piece.tensors) == {"fc2.weight", "tied.weight"}


def test_a_slice_is_recognised_however_it_is_written(module):
    for names in (["fc2.weight[1:3]", "tied.weight[1:-2, :]", "fc2.weight[1:3, 0:5]"], ["fc1.weight[-1]", "fc1.weight[4]", "fc1.weight[4, :]"]):
        assert [piece.name for piece in pieces(module, names)] == names[:1]


WRONG = {
    "fc1.wieght": r"no parameter 'fc1\.wieght'\. Did you mean 'fc1\.weight'\?",
    "zzzzzzzz": r"Its parameters are counts, fc1\.weight, fc1\.bias, fc2\.weight, fc2\.bias, tied\.bias\.$",
    "scale": "is a buffer of the module and no parameter",
    "counts": r"'counts' is of type torch\.int64, which cannot be sampled",
    "fc1.weight[5]": r"'5' in .* lies outside an axis of 5, or holds nothing. The parameter is of shape \[5, 6\]",
    "fc1.weight[-6]": "lies outside an axis of 5",
    "fc1.weight[:, 4:7]": "'4:7' in .* lies outside an axis of 6",
    "fc1.weight[:, -7:]": "lies outside an axis of 6",
    "fc1.weight[3:3]": "holds nothing",
    "fc1.weight[4:2]": "holds nothing",
    "fc1.weight[::0]": "has a step of 0",
    "fc1.weight[::-1]": "has a step of -1",
    "fc1.weight[0, 0, 0]": r"has 3 indices, but the parameter has 2 axes: \[5, 6\]",
    "fc1.weight[]": "'' in .* is neither a number nor a slice",
    "fc1.weight[...]": "neither a number nor a slice",
    "fc1.weight[0:1:1:1]": "neither a number nor a slice",
    "fc1.weight[__import__('os')]": "neither a number nor a slice",
    "fc1.weight[0][1]": r"no parameter 'fc1\.weight\[0\]\[1\]'",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_name_is_told(module, name):
    with pytest.raises(RllcError, match=WRONG[name]):
        pieces(module, [name])


@pytest.mark.parametrize("names", [["fc1.weight", "fc1.weight[0]"], ["fc1.weight[:3]", "fc1.weight[2:]"], ["fc2.weight[0]", "tied.weight[:, 0]"]])
def test_overlapping_pieces_are_refused(module, names):
    with pytest.raises(RllcError, match="holds weights that another piece"):
        pieces(module, names)


def test_a_part_is_a_list_of_names(module):
    for names in ([], "fc1.weight"):
        with pytest.raises(RllcError, match="should be a list of parameters"):
            pieces(module, names)
    with pytest.raises(RllcError, match="has none at all"):
        pieces(nn.ReLU(), ["weight"])
