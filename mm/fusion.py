"""Image embeddings into the places that the prompt keeps for them."""

from torch import Tensor

from mm.errors import InputError


def merge(token_embeds: Tensor, image_mask: Tensor, image_embeds: Tensor) -> Tensor:
    """A new tensor: ``token_embeds`` with the rows under ``image_mask`` replaced by ``image_embeds`` in order.

    Args:
        token_embeds: (T, D).
        image_mask: (T,) bool.
        image_embeds: (K, D); K must be the number of True in the mask.

    Raises:
        InputError: the counts differ. Checked before anything is written.
    """
    places = image_mask.nonzero().squeeze(1)
    if places.shape[0] != image_embeds.shape[0]:
        raise InputError(
            f"the prompt has {places.shape[0]} image positions, but the images give {image_embeds.shape[0]} "
            "embeddings. Build the prompt and the pixels with the same processor."
        )
    return token_embeds.index_copy(0, places, image_embeds.to(token_embeds.dtype))
