"""One picture in the making by rectified flow, and the step that takes it further.

A picture is an ordinary differential equation from noise (time 0) to latents (time 1), whose velocity the model tells
(JanusFlow, arXiv 2411.07975, section 3). In each step of Euler's method all positions of the picture go through the
decoder at once, behind the prompt, whose part of the cache stays as it is:

    prompt without its last token | time | latents, one token for each patch, row by row

Letters: R rows (1, or 2 under guidance: what to draw, what to lead away from), C channels, h w latents down and across,
P patches, D hidden size.
"""

import torch
from torch import Tensor

from mm.contracts import Cache, Decoder, FlowHead
from mm.errors import TaskError
from mm.generation.stopping import FinishReason

TIME_SCALE = 1000.0  # time 0..1 is told to the model as 0..1000, as published


class FlowRow:
    """The latents of one picture on their way, and why it ended ("stop": it is whole, or "cancelled").

    Latents are float32 whatever the model's type: each step adds a small number. Tensors are replaced, never written
    to, so that other threads may look at ``estimate`` at any time.

    Attributes:
        num_steps: steps of the whole picture.
        steps: those that are taken.
        num_positions: positions of the cache that a step takes.
        latents: (1, C, h, w) float32.
        estimate: likewise, what the picture will be if the velocity stays as it is; None before the first step.

    Args:
        head: of the model that draws.
        num_steps: see above.
        generator: this picture's own random numbers, on the CPU: its noise.
    """

    def __init__(self, head: FlowHead, *, num_steps: int, generator: torch.Generator) -> None:
        assert num_steps >= 1
        self.num_steps = num_steps
        self.steps = 0
        self.num_positions = head.num_positions
        self.latents = torch.randn(1, *head.latent_shape, generator=generator)
        self.estimate: Tensor | None = None
        self.finish_reason: FinishReason | None = None

    @property
    def time(self) -> float:
        """Where the next step begins, in 0..1."""
        return self.steps / self.num_steps

    def advance(self, velocity: Tensor) -> None:
        """Take Euler's step with a velocity (1, C, h, w).

        Raises:
            TaskError: after the last step, where the picture holds what is no number.
        """
        assert self.finish_reason is None
        latents = self.latents.to(velocity.device)
        self.estimate = latents + (1 - self.time) * velocity
        self.latents = latents + velocity * (1 / self.num_steps)
        self.steps += 1
        if self.steps == self.num_steps:
            if not self.latents.isfinite().all():
                raise TaskError(
                    "the model's output for this picture is not a number. In float16 this is an overflow: load the "
                    "model with dtype='bfloat16' or 'float32'. Otherwise its weights are damaged."
                )
            self.finish_reason = "stop"

    def finish(self, reason: FinishReason) -> str:
        """End the picture as it is."""
        assert self.finish_reason is None
        self.finish_reason = reason
        return ""


def guided(velocities: Tensor, scale: float) -> Tensor:
    """The velocity to follow, as published: scale * c - (scale - 1) * u.

    Args:
        velocities: (R, C, h, w): of the prompt c and, with two rows, of what guidance leads away from, u.
        scale: 1 is no guidance.

    Returns:
        (1, C, h, w).
    """
    if len(velocities) == 1:
        return velocities
    conditional, unconditional = velocities.chunk(2)
    return scale * conditional - (scale - 1) * unconditional


def velocities(
    decoder: Decoder,
    head: FlowHead,
    latents: Tensor,
    time: float,
    *,
    prompts: list[int],
    begins: list[int],
    cache: Cache,
) -> Tensor:
    """The velocity of one picture in each row.

    Args:
        decoder: the language model.
        head: the generation side.
        latents: (1, C, h, w).
        time: in 0..1.
        prompts: tokens of each row's prompt, which the cache holds.
        begins: where the picture begins in each row; positions between the two are not attended.
        cache: R rows.

    Returns:
        (R, C, h, w) float32.
    """
    rows, count, device = len(begins), head.num_positions, head.device
    # Made on the device, number by number: nothing is copied there, so that the host need not wait.
    tokens, moment, skip = head.encode(latents.to(device), torch.full((1,), time * TIME_SCALE, device=device))
    embeds = torch.cat((moment[:, None], tokens), dim=1).expand(rows, -1, -1)  # (R, 1 + P, D)
    positions = torch.stack([torch.arange(first, first + count, device=device) for first in begins])  # (R, 1 + P)
    slots = torch.arange(max(begins) + count, device=device)
    pairs = zip(prompts, begins, strict=True)
    attended = torch.stack([(slots < known) | (slots >= first) for known, first in pairs])  # (R, visible)
    hidden = decoder(embeds, positions=positions, cache=cache, visible=len(slots), key_mask=attended)
    out = head.velocity(hidden[:, 1:], skip.expand(rows, -1, -1, -1), moment.expand(rows, -1))
    return out.float()
