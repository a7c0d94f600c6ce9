"""The work of exact and of linear attention on given inputs."""

import math

import numpy as np

from randfeat.attention import exact
from randfeat.attention.inputs import Inputs
from randfeat.attention.problem import Problem
from randfeat.attention.relations import Relation
from randfeat.attention.relations.work import Sizes, Work, pair_work


def exact_work(inputs: Inputs, relation: Relation) -> Work:
    """The work of `kernel_attention`: blocks of queries with all keys that one of the block sees."""
    heads = math.prod(np.broadcast_shapes(inputs.query.shape[:-2], inputs.key.shape[:-2], inputs.value.shape[:-2]))
    pairs = heads * relation.exact_pairs(inputs.num_queries, inputs.num_keys, exact.BLOCK)
    calls = sum(1 for _ in relation.sequences(inputs))
    return pair_work(Sizes.of(inputs), pairs, passes=relation.exact_passes) | {"exact_call": calls}


def linear_work(problem: Problem) -> Work:
    """The work of `linear_attention`, by the pass of its relation."""
    return problem.relation.linear_work(Sizes.of(problem.inputs, problem.features))
