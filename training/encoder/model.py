"""The encoder in JAX: what `candidate_service.encoder` computes in numpy, for all prefixes at once.

One causal self-attention layer, then attention pooling over the items' own vectors, so that a query
stays in the space of the items: Hou, Hu, Zhao and others, "CORE: Simple and Effective Session-based
Recommendation within Consistent Representation Space", SIGIR 2022. Scores are cosines, sharpened by
a scale as in Wang, Xiang, Cheng and Yuille, "NormFace", ACM MM 2017.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

HEAD = 64
"""Dimensions in which attention compares."""
LENGTH = 20
"""Newest clicks of a visit that are looked at."""
SCALE = 14.0
"""Sharpness of the cosines in the softmax."""
Weights = dict[str, npt.NDArray[np.float32]]


def initial_weights(dimensions: int, rng: np.random.Generator) -> Weights:
    """Small: at first every prefix's query is the mean of its items, newer ones counting more."""

    def small(*shape: int) -> npt.NDArray[np.float32]:
        return np.asarray(rng.normal(size=shape) * 0.1 / np.sqrt(shape[0]), dtype=np.float32)

    return {
        "attend_query": small(dimensions, HEAD),
        "attend_key": small(dimensions, HEAD),
        "attend_out": small(dimensions, dimensions),
        "attend_bias": np.zeros(LENGTH, np.float32),
        "pool_query": small(dimensions, HEAD),
        "pool_key": small(dimensions, HEAD),
        "pool_item": small(dimensions, 1)[:, 0],
        "pool_bias": (-0.5 * np.arange(LENGTH)).astype(np.float32),
    }


def unit(x: Any) -> Any:
    import jax.numpy as jnp

    return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def queries(weights: Any, x: Any) -> Any:
    """x: unit vectors of the clicks [sessions, length, dimensions], oldest first, dropped out while
    learning. Unit queries of the same shape: at each click of all up to it."""
    import jax
    import jax.numpy as jnp

    length = x.shape[1]
    distance = np.arange(length)[:, None] - np.arange(length)[None, :]
    allowed, distance = distance >= 0, np.clip(distance, 0, LENGTH - 1)

    def attention(h: Any, query: Any, key: Any, bias: Any) -> Any:
        alike = jnp.einsum("std,sud->stu", h @ query, h @ key) / np.sqrt(HEAD)
        return jnp.where(allowed, alike + bias[distance], -1e9)

    mixed = (
        jax.nn.softmax(
            attention(x, weights["attend_query"], weights["attend_key"], weights["attend_bias"])
        )
        @ x
    )
    h = x + mixed @ weights["attend_out"]
    pooling = attention(h, weights["pool_query"], weights["pool_key"], weights["pool_bias"])
    pooling = pooling + jnp.where(allowed, (h @ weights["pool_item"])[:, None, :], 0.0)
    return unit(jax.nn.softmax(pooling) @ x)


def loss(
    parameters: Any, clicks: Any, labels: Any, weight: Any, negatives: Any, log_odds: Any, key: Any,
    dropout: float,
) -> Any:  # fmt: skip
    """Sampled softmax. clicks, labels: item numbers [sessions, length]; weight: of each label, 0 where
    there is none. negatives: item numbers [n], shared by the batch; log_odds [items]: the logarithm
    of how often an item is expected among the negatives, by which its score is corrected (Jean, Cho,
    Memisevic and Bengio, "On Using Very Large Target Vocabulary", ACL 2015)."""
    import jax
    import jax.numpy as jnp

    table, weights = parameters["items"], parameters["weights"]
    x = unit(table[clicks])
    kept = jax.random.bernoulli(key, 1 - dropout, x.shape)
    query = queries(weights, jnp.where(kept, x / (1 - dropout), 0.0))
    right = SCALE * jnp.sum(query * unit(table[labels]), axis=-1)
    wrong = SCALE * jnp.einsum("std,nd->stn", query, unit(table[negatives])) - log_odds[negatives]
    wrong = jnp.where(labels[:, :, None] == negatives, -1e9, wrong)
    right = right - log_odds[labels]
    total = jnp.logaddexp(right, jax.nn.logsumexp(wrong, axis=-1))
    return jnp.sum(weight * (total - right)) / jnp.maximum(jnp.sum(weight), 1e-6)
