"""The kernels of a decode step, under one name, and beside each the plain function that it equals.

A decode step reads every weight once for a handful of rows, so its time is that of reading them, plus a latency for
every launch. These Triton kernels join what stands between the products (residual and norm, rotation and cache,
activation) and replace products that a library does not do well at few rows (one or two rows, a few tokens over many
experts, attention of one token over a cache whose rows differ in length). ``mm.language.fast_decode`` puts them in
order.

Imported only where a decode step runs on CUDA; nothing here is needed elsewhere. Sums are in float32.

Letters: B rows, D hidden size, N outputs of a product, H heads, G key/value heads, A head dimension, S cache slots, C
and R latent rank and rope dims, E experts, K experts a token, I expert width.
"""

from mm.language.attention_kernels import attention, attention_plain, rotate_and_store
from mm.language.expert_kernels import Shared, combine, combine_plain, experts, experts_plain
from mm.language.latent_attention_kernels import (
    expanded,
    expanded_plain,
    latent_attention,
    latent_attention_plain,
    store_latent,
    store_latent_plain,
)
from mm.language.linear_kernels import (
    MAX_GROUPED_ROWS,
    MAX_ROWS,
    add_norm,
    add_norm_plain,
    gated,
    gated_plain,
    linear,
    linear_plain,
    silu_mul,
    silu_mul_plain,
)
from mm.language.routing_kernels import by_expert, by_expert_plain, choose, route, route_plain, router_plain

__all__ = [
    "MAX_GROUPED_ROWS",
    "MAX_ROWS",
    "Shared",
    "add_norm",
    "add_norm_plain",
    "attention",
    "attention_plain",
    "by_expert",
    "by_expert_plain",
    "choose",
    "combine",
    "combine_plain",
    "expanded",
    "expanded_plain",
    "experts",
    "experts_plain",
    "gated",
    "gated_plain",
    "latent_attention",
    "latent_attention_plain",
    "linear",
    "linear_plain",
    "rotate_and_store",
    "route",
    "route_plain",
    "router_plain",
    "silu_mul",
    "silu_mul_plain",
    "store_latent",
    "store_latent_plain",
]
