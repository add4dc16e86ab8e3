"""Float32 matrix products on a CPU, at the full width of its registers.

torch multiplies float32 matrices with MKL, which on processors of other makers than Intel uses half of the width that
AVX-512 has. oneDNN, the other library inside torch, uses all of it. One core of a Zen 5, 1,152 rows by (256, 1024): 101
GFLOP/s with MKL, 228 with oneDNN; under AVX2 the two are equal.

Weights are read as they lie in memory (packed beforehand they are 4 % faster), so a change in place is seen.

Letters: K numbers of an input row, N of an output row, A heads of queries, B of keys, P places, S of them seen, C and V
channels of a head.
"""

import warnings
from functools import cache
from typing import Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_ROWS = 32  # with fewer the call itself costs what is won: 8 rows by (256, 512) take 29 us either way
LEAST_PLACES = 256  # of attention, head by head: 1.6 times torch's time at 100, as long at 200 to 250, 0.7 times at 500
_PLAIN = (Tensor, nn.Parameter)
LEAST_STEP = 16  # rows; see ``rounded``
QUERIES_TOGETHER = 256  # whose scores stay in a core's own cache: 0.6 MB with 576 keys


@cache
def _is_wide() -> bool:
    """Whether the processor has AVX-512 and torch has oneDNN's product, as it is called here: torch keeps it for its
    own use, and may change it from one release to the next."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return is_known()


@torch.no_grad()
def is_known() -> bool:
    """Whether ``linear`` gives what torch's own product gives; where it does not, a warning says so."""
    x, weight, bias = torch.linspace(-1, 1, 48 * 40).split((32 * 40, 15 * 40, 40))
    x, weight, bias = x.view(32, 40), weight.view(15, 40), bias[:15]
    try:
        with torch.autocast("cpu", enabled=False):
            found = linear(x, weight, bias, gelu="tanh")
            same = torch.allclose(found, F.gelu(F.linear(x, weight, bias), approximate="tanh"), atol=1e-4)
        reason = "it gives other numbers than torch's own"
    except (AttributeError, TypeError, RuntimeError) as error:  # how torch says that there is no such operator
        same, reason = False, f"{type(error).__name__}: {error}"
    if not same:
        warnings.warn(f"float32 products go without oneDNN in torch {torch.__version__}: {reason}", stacklevel=2)
    return same


def suits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether ``linear`` is made for these: float32 on a wide CPU, enough rows, plain tensors (it reads a bias with
    gaps past its end, and knows no class of tensors but torch's), nothing that follows what is computed (gradients,
    autocast, a compiler)."""
    return (
        not torch.compiler.is_compiling()  # first: a compiler would look into the rest
        and not torch.is_grad_enabled()
        and x.dtype == weight.dtype == torch.float32
        and x.is_cpu
        and weight.is_cpu
        and type(x) in _PLAIN
        and type(weight) in _PLAIN
        and x.shape[-1] == weight.shape[-1]
        and x.numel() >= LEAST_ROWS * x.shape[-1] > 0
        and weight.is_contiguous()
        and (bias is None or bias.dtype == torch.float32 and bias.is_contiguous() and len(bias) == len(weight))
        and not torch.is_autocast_enabled("cpu")
        and _is_wide()
    )


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: Literal["none", "tanh"] | None = None
) -> Tensor:
    """``F.linear``, and the activation behind it; where ``suits`` says yes.

    Args:
        x: (..., K).
        weight: (N, K), contiguous: otherwise the library takes its slowest way.
        bias: (N,), contiguous: otherwise the library reads what does not belong to it.
        gelu: form of a GELU over the result.

    Returns:
        (..., N).
    """
    out: Tensor = torch.ops.mkldnn._linear_pointwise(
        x, weight, bias, "none" if gelu is None else "gelu", [], gelu or ""
    )
    return out


def rounded(rows: int) -> int:
    """As many rows or up to an eighth more, few different numbers of them. oneDNN writes code for each shape that it
    meets, which takes half a millisecond, and keeps a thousand of them: with every length that prompts have, half a
    gigabyte, and as much again that the heap cannot give back between them."""
    step = max(LEAST_STEP, (1 << (rows - 1).bit_length()) // 16)
    return -(-rows // step) * step


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``, by the faster of the two libraries: (..., K) and (N, K) -> (..., N)."""
    if not suits(x, weight, bias):
        return F.linear(x, weight, bias)
    rows = x.shape[:-1].numel()
    flat, more = x.flatten(0, -2), rounded(rows) - rows
    found = linear(F.pad(flat, (0, 0, 0, more)) if more else flat, weight, bias)
    return found[:rows].view(*x.shape[:-1], -1)


def attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool = False) -> Tensor:
    """Scaled dot-product attention; ``suits`` of queries and keys says where, from ``LEAST_PLACES`` on it is faster
    than torch's own, which multiplies with MKL.

    Args:
        query: (A, P, C).
        key: (B, P, C) with B dividing A: heads may share keys and values.
        value: (B, P, V).
        scale: of the scores.
        causal: each place sees those up to its own.

    Returns:
        (P, A, V).
    """
    heads, given, _ = query.shape
    share = heads // key.shape[0]
    if causal:  # prompts: of many lengths, and what is added behind is seen by none of them
        places, together = rounded(given), QUERIES_TOGETHER
        query, key, value = (F.pad(part, (0, 0, 0, places - given)) for part in (query, key, value))
    else:  # views: all of one length
        places, together = given, -(-given // -(-given // QUERIES_TOGETHER))  # parts of one size
    query, key = (query * scale).contiguous(), key.contiguous()
    value = value.transpose(1, 2).contiguous()  # (B, V, P)
    out = query.new_empty(places, heads, value.shape[1])
    for start in range(0, places, together):
        stop = min(start + together, places)
        seen = stop if causal else places
        hidden = query.new_full((stop - start, stop - start), -torch.inf).triu(1) if causal else None
        for head in range(heads):
            keys, values = key[head // share, :seen], value[head // share, :, :seen].contiguous()
            scores = linear(query[head, start:stop], keys)  # (P', S)
            if hidden is not None:
                scores[:, start:] += hidden
            torch.softmax(scores, dim=-1, out=scores)
            out[start:stop, head] = linear(scores, values)
    return out[:given]


class WideLinear(nn.Linear):
    """A linear layer by the faster of the two libraries; ``mm.transforms.wide`` makes them of plain ones."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        return product(input, self.weight, self.bias)


def is_plain(layer: object) -> TypeGuard[nn.Linear]:
    """Whether a layer is linear and nothing besides: no adapter around it, no codes for weights."""
    return type(layer) in (nn.Linear, WideLinear)
