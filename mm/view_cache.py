"""Image views that were encoded lately, found again by their pixels.

The follow-up question of a conversation, several questions about one page, the same logo in a thousand scans, the empty
tiles beside a narrow picture, the only tile of a small picture (its global view again): a view is encoded once.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mm.contracts import Inputs, MultimodalModel

# Enough for dozens of published images of nine tiles in bf16 (196 tokens of 2,560 numbers: 1 MB a view).
DEFAULT_MAX_BYTES = 256 * 2**20


def kept_bytes(weight_bytes: int) -> int:
    """Most bytes of views that are kept beside weights of this size: a quarter of it, at most ``DEFAULT_MAX_BYTES``."""
    return min(DEFAULT_MAX_BYTES, weight_bytes // 4)


class ViewCache:
    """The tokens of views, least recently used ones dropped first. May be shared by threads.

    Args:
        max_bytes: most bytes of tokens kept; 0 keeps nothing between calls, and still encodes equal views of one call
            once.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.num_encoded = 0  # views that went through the encoder since the start
        self._tokens: OrderedDict[bytes, Tensor] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def encode(self, pixels: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Tokens of all views, of which only unknown ones are encoded.

        Args:
            pixels: (N, 3, S, S) normalised views on the CPU, N > 0.
            encode: (n, 3, S, S) -> (n, M, D).

        Returns:
            (N, M, D).
        """
        keys = [hashlib.blake2b(view.contiguous().numpy().data, digest_size=16).digest() for view in pixels]
        with self._lock:
            found = {key: self._tokens[key] for key in keys if key in self._tokens}
            for key in found:
                self._tokens.move_to_end(key)
        missing = {key: index for index, key in reversed(list(enumerate(keys))) if key not in found}
        if missing:
            wanted = sorted(missing.items(), key=lambda item: item[1])
            new = encode(pixels[[index for _, index in wanted]])
            found.update((key, tokens) for (key, _), tokens in zip(wanted, new, strict=True))
            self._keep({key: found[key] for key, _ in wanted})
        return torch.stack([found[key] for key in keys])

    def clear(self) -> None:
        """Forget all views."""
        with self._lock:
            self._tokens.clear()
            self._bytes = 0

    @property
    def num_bytes(self) -> int:
        """Memory of what is kept."""
        return self._bytes

    def _keep(self, views: dict[bytes, Tensor]) -> None:
        with self._lock:
            self.num_encoded += len(views)
            for key, tokens in views.items():
                size = tokens.numel() * tokens.element_size()
                if key in self._tokens or size > self.max_bytes:
                    continue
                self._tokens[key] = tokens.clone()  # its own memory: a slice would keep the whole batch alive
                self._bytes += size
            while self._bytes > self.max_bytes:
                _, old = self._tokens.popitem(last=False)
                self._bytes -= old.numel() * old.element_size()


class _Forgetful:
    """A memory of nothing."""

    def encode(self, pixels: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """All of them."""
        return encode(pixels)


class PromptEmbedder:
    """Embeds prompts, and remembers their views for as long as the model's weights stay as they are.

    Args:
        model: whose embeddings they are.
        views: its memory, used by nothing else.
    """

    def __init__(self, model: MultimodalModel, views: ViewCache) -> None:
        self.views = views
        self._model = model
        self._changes = 0  # that torch does not count
        self._known: object = None
        self._children: list[tuple[Mapping[str, nn.Module | None], tuple[nn.Module | None, ...]]] = []
        self._parameters: list[Mapping[str, nn.Parameter | None]] = []

    def __call__(self, inputs: Inputs) -> Tensor:
        """(T, D) embeddings of a prompt or a piece of one, images in place."""
        if len(inputs.pixels):
            version = self.version()
            if version != self._known:
                self.views.clear()
                self._known = version
        return self._model.embed_inputs([inputs], self.views)[0]

    def many(self, inputs: list[Inputs]) -> list[Tensor]:
        """(T_i, D) of each, their views in one run of the encoder. None is looked up nor remembered: to find a view by
        its pixels takes the time in which an accelerator encodes it."""
        return self._model.embed_inputs(inputs, _Forgetful())

    def version(self) -> object:
        """Differs after a change of the weights: where each parameter is, and torch's count of changes in place. Writes
        through ``parameter.data`` are not counted by torch; ``weights_changed`` tells of them."""
        # Every request asks, and to walk through all modules takes a millisecond.
        if not self._children or not all(tuple(held.values()) == children for held, children in self._children):
            assert isinstance(self._model, nn.Module)
            modules = list(self._model.modules())
            self._children = [(module._modules, tuple(module._modules.values())) for module in modules]
            self._parameters = [module._parameters for module in modules if module._parameters]
        # Parameters that were made in inference mode have no count.
        counts = [
            (p.data_ptr(), 0 if p.is_inference() else p._version)
            for held in self._parameters
            for p in held.values()
            if p is not None
        ]
        return self._changes, hash(tuple(counts))

    def weights_changed(self) -> None:
        """Make ``version`` differ from what it was."""
        self._changes += 1
