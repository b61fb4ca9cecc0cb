"""The fusion and its guarantees, on lists that a person can work out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from candidate_service.board import Board, Floats, Ints
from candidate_service.merge import Proposals, merge
from candidate_service.source import best


def _list(*items: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(items, dtype=np.int32)


_BOARDS = Board(100), Board(100)


def merged(
    proposals: Sequence[Ints], weights: Sequence[float], quotas: Sequence[float], constant: float,
    count: int, out: Sequence[int] = (),
) -> tuple[Ints, Floats]:  # fmt: skip
    """By the kernel; its boards are empty again afterwards."""
    found = merge(
        Proposals(proposals), np.array(weights, float), np.array(quotas, float), constant, count,
        _list(*out), _BOARDS,
    )  # fmt: skip
    assert not any(board.scores.any() for board in _BOARDS)
    return found


def test_ranks_are_fused() -> None:
    items, ranks = merged([_list(7, 3), _list(3, 5)], [1, 1], [0, 0], 40, 9)
    # 3: 1/42 + 1/41, 7: 1/41, 5: 1/42
    assert items.tolist() == [3, 7, 5]
    np.testing.assert_array_equal(ranks, [[2, 1], [1, np.nan], [np.nan, 2]])


def test_weights_and_ties() -> None:
    items, _ = merged([_list(9, 2), _list(4, 6)], [1, 1], [0, 0], 40, 9)
    assert items.tolist() == [4, 9, 2, 6]
    items, _ = merged([_list(9, 2), _list(4, 6)], [1, 2], [0, 0], 40, 9)
    assert items.tolist() == [4, 6, 9, 2]


def test_what_is_left_out_has_no_rank() -> None:
    items, ranks = merged([_list(7, 3, 5), _list(3, 7)], [1, 1], [0.5, 0], 40, 9, out=[7, 7])
    assert items.tolist() == [3, 5]
    np.testing.assert_array_equal(ranks, [[1, 1], [2, np.nan]])


def test_a_quota_beats_the_fused_score() -> None:
    proposals = [_list(1, 2, 3, 4), _list(8, 9)]
    assert merged(proposals, [1, 0.01], [0, 0], 40, 4)[0].tolist() == [1, 2, 3, 4]
    assert merged(proposals, [1, 0.01], [0, 0.25], 40, 4)[0].tolist() == [1, 2, 3, 8]
    assert merged(proposals, [1, 0.01], [0, 0.5], 40, 4)[0].tolist() == [1, 2, 8, 9]


_PROPOSAL = st.lists(st.integers(0, 50), unique=True).map(lambda items: _list(*items))


@given(st.lists(_PROPOSAL, min_size=3, max_size=3), st.integers(1, 60))
def test_any_proposals(
    proposals: list[np.ndarray[tuple[int], np.dtype[np.int32]]], count: int
) -> None:
    quotas = [0.5, 0.3, 0.2]
    items, ranks = merged(proposals, [1, 0.5, 0.1], quotas, 40, count)
    union = {item for proposal in proposals for item in proposal.tolist()}
    assert len(set(items.tolist())) == len(items) == min(count, len(union))
    for source, proposal in enumerate(proposals):
        places = {item: rank for rank, item in enumerate(proposal.tolist(), 1)}
        assert {*proposal[: int(quotas[source] * count)].tolist()} <= {*items.tolist()}
        for item, rank in zip(items.tolist(), ranks[:, source], strict=True):
            assert places.get(item) == rank or (item not in places and np.isnan(rank))


@given(st.lists(st.integers(0, 5)), st.integers(-1, 40))
def test_best_is_a_stable_sort(values: list[int], count: int) -> None:
    scores = np.array(values, dtype=np.float32)
    items, found = best(np.arange(len(values), dtype=np.int32), scores, count)
    expected = sorted(range(len(values)), key=lambda item: (-values[item], item))[: max(count, 0)]
    assert items.tolist() == expected
    assert found.tolist() == [values[item] for item in expected]
