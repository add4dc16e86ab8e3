"""Image views that were encoded lately, found again by their pixels.

The follow-up question of a conversation, several questions about one page, the same logo in a thousand scans, the empty
tiles beside a narrow picture, the only tile of a small picture (its global view again): a view is encoded once.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

# Enough for dozens of published images of nine tiles in bf16 (196 tokens of 2,560 numbers: 1 MB a view).
DEFAULT_MAX_BYTES = 256 * 2**20


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
