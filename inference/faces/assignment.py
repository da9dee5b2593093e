"""The best pairs of two small sets, by what each pair is worth: exact, and the same every time."""

from __future__ import annotations

from typing import Dict, List, Sequence

import numpy as np


def assign(worth: Sequence[Sequence[float]]) -> Dict[int, int]:
    """The pairs with the largest sum; each row and each column is in one pair at most.

    The Hungarian method with potentials, by shortest augmenting paths: n³ steps.

    Args:
        worth: rows of equal length; 0 for pairs that may not be.

    Returns:
        Row to column.
    """
    if not worth or not len(worth[0]):
        return {}
    values = np.asarray(worth, np.float64)
    rows, columns = values.shape
    size = max(rows, columns)
    cost = np.zeros((size, size))
    cost[:rows, :columns] = -values
    row_price, column_price = np.zeros(size + 1), np.zeros(size + 1)
    owner = [0] * (size + 1)  # of each column, counted from 1; column 0 is where a row begins
    before = [0] * (size + 1)
    for row in range(1, size + 1):
        owner[0], column = row, 0
        least = np.full(size + 1, np.inf)
        used: List[bool] = [False] * (size + 1)
        while owner[column]:
            used[column] = True
            current, delta, following = owner[column], np.inf, 0
            for other in range(1, size + 1):
                if used[other]:
                    continue
                reduced = cost[current - 1, other - 1] - row_price[current] - column_price[other]
                if reduced < least[other]:
                    least[other], before[other] = reduced, column
                if least[other] < delta:
                    delta, following = least[other], other
            for other in range(size + 1):
                if used[other]:
                    row_price[owner[other]] += delta
                    column_price[other] -= delta
                else:
                    least[other] -= delta
            column = following
        while column:
            owner[column] = owner[before[column]]
            column = before[column]
    return {
        owner[column] - 1: column - 1
        for column in range(1, columns + 1)
        if 0 < owner[column] <= rows and values[owner[column] - 1, column - 1] > 0
    }
