"""Optimal assignment of detections to tracks."""

import itertools
import math

import numpy as np

from posecli.geometry import Float64Array
from posecli.types import IntArray

# Largest number of assignments that are tried one by one.
_MOST_TRIED = 120


def assign(similarity: Float64Array) -> tuple[IntArray, IntArray]:
    """Rows and columns (M,) of the assignment with the highest total in a table (T, N); M is the smaller of T and N.

    A small table is searched completely, which saves the import of scipy, half a second; others are solved by scipy
    (Kuhn, "The Hungarian Method", 1955). Rows ascend.
    """
    count, others = similarity.shape
    few, many = min(count, others), max(count, others)
    if math.perm(many, few) <= _MOST_TRIED:
        table = similarity if count <= others else similarity.T
        tried = np.array(list(itertools.permutations(range(many), few)), np.int64)
        best = tried[table[np.arange(few), tried].sum(axis=1).argmax()]
        if count <= others:
            return np.arange(few), best
        order = np.argsort(best)
        return best[order], order
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return np.asarray(rows, np.int64), np.asarray(columns, np.int64)
