"""Which of several pictures shows best what was asked for.

"self" has the model judge its own pictures: the log-likelihood of the prompt as the answer to the caption question,
through the engine (``ForcedTokens``). "clip" takes the cosine of CLIP's embeddings of picture and prompt (arXiv
2103.00020, section 2.3), with weights from the hub.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mm.errors import ResourceError

# OpenCLIP's ViT-B/32 (151 M parameters), small enough to sit beside any model that draws.
CLIP_WEIGHTS = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


class ForcedTokens:
    """A constraint under which an answer is written as it is given.

    Args:
        tokens: of the answer, at least one.
        vocab_size: V.
    """

    open = False

    def __init__(self, tokens: Sequence[int], vocab_size: int) -> None:
        self._tokens = list(tokens)
        self._vocab_size = vocab_size
        self._next = 0

    def allowed(self) -> Tensor:
        """(V,) bool, True for the next token."""
        mask = torch.zeros(self._vocab_size, dtype=torch.bool)
        mask[self._tokens[self._next]] = True
        return mask

    def advance(self, token: int) -> None:
        """The next one was taken."""
        assert token == self._tokens[self._next]
        self._next += 1


class ClipScorer:
    """Scores pictures with CLIP.

    Args:
        model: of open_clip.
        preprocess: a picture to its pixels (3, S, S).
        tokenize: texts to ids (B, T).
    """

    def __init__(self, model: Any, preprocess: Any, tokenize: Any) -> None:
        self._model = model.eval()
        self._preprocess = preprocess
        self._tokenize = tokenize

    @classmethod
    def load(cls, weights: str = CLIP_WEIGHTS) -> "ClipScorer":
        """With weights from the hub, or from its cache.

        Raises:
            ResourceError: they cannot be had.
        """
        import open_clip

        name = f"hf-hub:{weights}"
        try:
            model, preprocess = open_clip.create_model_from_pretrained(name)
            tokenize = open_clip.get_tokenizer(name)
        except (OSError, RuntimeError, ValueError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ResourceError(
                f"rerank='clip' needs the weights of {weights}, which are not to be had: {first}. Use rerank='self', "
                "which needs none, or check the network and HF_HUB_OFFLINE"
            ) from error
        return cls(model, preprocess, tokenize)

    @torch.inference_mode()
    def score(self, image: Image.Image, prompt: str) -> float:
        """The cosine of the picture's and the prompt's embeddings, -1 to 1."""
        picture = self._model.encode_image(self._preprocess(image)[None], normalize=True)  # (1, C)
        text = self._model.encode_text(self._tokenize([prompt]), normalize=True)  # (1, C)
        return float((picture * text).sum())
