"""The order in which the genuine library lists what depends on each other.

It is a depth-first search from the first to the last node over the edges to consumers, each node
noted when all behind it are done, read backwards: late branches come first. The recorded lists
of the genuine files have this order.
"""

from __future__ import annotations

from typing import (
    Dict,
    Hashable,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

N = TypeVar("N", bound=Hashable)


def topological_order(nodes: Iterable[N], successors: Mapping[N, Sequence[N]]) -> Optional[List[N]]:
    """``nodes`` so that each comes before its ``successors``; ``None`` if they form a cycle.

    Args:
        nodes: all nodes, in the order in which they were made.
        successors: of each node; those that are not among the nodes must not be named.
    """
    done: Dict[N, bool] = {}
    finished: List[N] = []
    for root in nodes:
        if root in done:
            continue
        done[root] = False
        stack: List[Tuple[N, Iterator[N]]] = [(root, iter(successors[root]))]
        while stack:
            node, rest = stack[-1]
            for following in rest:
                if following not in done:
                    done[following] = False
                    stack.append((following, iter(successors[following])))
                    break
                if not done[following]:
                    return None
            else:
                stack.pop()
                done[node] = True
                finished.append(node)
    return finished[::-1]
