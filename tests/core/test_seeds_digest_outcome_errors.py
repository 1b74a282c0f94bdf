"""Seeds and digests are promises to old records: their values are written down here. Outcomes say what to do, errors survive a process."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllc.core import digest, seeds
from rllc.core.errors import RllcError
from rllc.core.outcome import Outcome


def test_seeds_are_the_same_on_every_machine_and_for_ever() -> None:
    assert seeds.derive(0) == int(hashlib.sha256(b"0").hexdigest()[:16], 16) >> 1
    assert seeds.derive(7, "noise", "1:6", 3) == int(hashlib.sha256(b"7\x1fnoise\x1f1:6\x1f3").hexdigest()[:16], 16) >> 1
    assert seeds.derive(0, "noise", "1:6", 3) == 2210082748130884427
    assert seeds.generator(0, "noise").integers(1 << 30, size=3).tolist() == [482362425, 662869815, 898192272]


@given(st.lists(st.tuples(st.integers(-5, 5), st.lists(st.sampled_from(["a", "b", "ab", 1, 2, 12]), max_size=3)), min_size=2, max_size=20))
def test_different_names_have_different_seeds_that_torch_and_numpy_take(cases: list[tuple[int, list[str | int]]]) -> None:
    derived = {(root, *map(str, names)): seeds.derive(root, *names) for root, names in cases}
    assert len(set(derived.values())) == len(derived)
    assert all(0 <= seed < 1 << 63 for seed in derived.values())


def test_streams_with_different_names_are_uncorrelated() -> None:
    a, b = seeds.generator(0, "noise", 0).standard_normal(20_000), seeds.generator(0, "noise", 1).standard_normal(20_000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    assert np.array_equal(a, seeds.generator(0, "noise", 0).standard_normal(20_000))


def test_the_digest_of_json_is_that_of_its_canonical_text() -> None:
    assert digest.of_json({"b": [1, 2.5, None], "a": "ü"}) == hashlib.sha256(rb'{"a":"\u00fc","b":[1,2.5,null]}').hexdigest()
    assert digest.of_json([1]) != digest.of_json([1.0]) != digest.of_json(["1"])


@pytest.mark.parametrize(
    ("value", "error"), [(float("nan"), ValueError), (float("inf"), ValueError), ({1, 2}, TypeError), (np.float32(1), TypeError)]
)
def test_what_json_cannot_hold_has_no_digest(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="JSON"):
        digest.of_json({"a": value})


def test_the_digest_of_arrays_sees_names_dtypes_shapes_and_numbers() -> None:
    base = {"w": np.arange(6.0).reshape(2, 3), "b": np.zeros(2, np.float32)}
    same = {"b": base["b"].copy(), "w": np.asfortranarray(base["w"])}
    assert digest.of_arrays(base) == digest.of_arrays(same)
    content = b"b|<f4|(2,)|" + base["b"].tobytes() + b"w|<f8|(2, 3)|" + base["w"].tobytes()
    assert digest.of_arrays(base) == hashlib.sha256(content).hexdigest()
    others = [
        {"v": base["w"], "b": base["b"]},
        {**base, "w": base["w"].T.copy()},
        {**base, "w": base["w"].reshape(3, 2)},
        {**base, "b": np.zeros(2, np.int32)},
        {**base, "b": np.array([0, -0.0], np.float32)},
        {**base, "c": np.zeros(0)},
        {"w": base["w"]},
        {"x": np.zeros(())},
        {"x": np.zeros(1)},
    ]
    assert len({digest.of_arrays(arrays) for arrays in [base, *others]}) == len(others) + 1


def test_an_array_of_objects_has_no_digest() -> None:
    with pytest.raises(TypeError, match="'w' holds objects"):
        digest.of_arrays({"w": np.array([{}, None], dtype=object)})


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\x00\xffabc" * 100_000)
    assert digest.of_file(path) == hashlib.sha256(b"\x00\xffabc" * 100_000).hexdigest()


def test_only_cells_without_a_number_are_refused_and_every_outcome_says_what_to_do() -> None:
    assert [outcome.value for outcome in Outcome if outcome.refused] == ["nonfinite", "unstable"]
    assert [outcome.value for outcome in Outcome if not outcome.refused] == ["ok", "drifting", "tilted"]
    assert len({outcome.text for outcome in Outcome}) == len(Outcome)
    assert all("step size" in outcome.text for outcome in Outcome if outcome.refused)
    assert Outcome("tilted") is Outcome.TILTED


def test_an_error_is_a_sentence_with_a_remedy_and_survives_a_process() -> None:
    error = pickle.loads(pickle.dumps(RllcError("The cup is empty.", "Fill it.")))
    assert type(error) is RllcError
    assert (str(error), error.problem, error.remedy) == ("The cup is empty. Fill it.", "The cup is empty.", "Fill it.")
    assert str(RllcError("The cup is empty.", "")) == "The cup is empty."
