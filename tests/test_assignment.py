"""Assignment of detections to tracks, against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from posecli.tracking.assignment import assign


@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 1000), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_assignment_is_optimal(count: int, others: int, seed: int, coarse: bool) -> None:
    """The same total as scipy's, each row and column once; also with ties (coarse) and with nothing to assign."""
    table = np.random.default_rng(seed).normal(size=(count, others))
    table = np.round(table) if coarse else table
    rows, columns = assign(table)
    expected = table[linear_sum_assignment(table, maximize=True)].sum()
    assert len(rows) == len(columns) == min(count, others)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows)
    assert (np.diff(rows) > 0).all()
    assert table[rows, columns].sum() == pytest.approx(expected)
    if not coarse and math.perm(max(count, others), min(count, others)) > 1:
        np.testing.assert_array_equal(columns, linear_sum_assignment(table, maximize=True)[1])
