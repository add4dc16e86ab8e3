"""Pictures by flow on a GPU: the latents of the CPU, the same to the bit in a batch, and no waiting in a step."""

from pathlib import Path

import pytest
import torch

from mm import Pipeline
from mm.families.table import load_model, load_processor
from mm.generation.flow_picture import guided, velocities
from tests.generation.test_flow import draw, new_engine, new_row

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_latents_are_those_of_the_cpu(tiny_flow: Path) -> None:
    prompt = load_processor(tiny_flow).drawing_prompt("two red circles")
    found = []
    for device in ("cpu", "cuda"):
        model = load_model(tiny_flow, device=device, dtype="float32")
        with new_engine(model) as engine:
            found += draw(model, engine, [(prompt, 1, 5.0)])
    torch.testing.assert_close(found[1].cpu(), found[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_seed_gives_the_same_latents_in_a_batch(tiny_flow: Path, dtype: str) -> None:
    model, processor = load_model(tiny_flow, device="cuda", dtype=dtype), load_processor(tiny_flow)
    jobs = [(processor.drawing_prompt("red " * n + "circles"), n, 5.0) for n in range(1, 7)]
    alone = []
    for job in jobs:
        with new_engine(model) as engine:
            alone += draw(model, engine, [job])
    with new_engine(model) as engine:
        together = draw(model, engine, jobs[::-1])[::-1]
    assert all(torch.equal(first, second) for first, second in zip(alone, together, strict=True))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_step_does_not_wait_for_the_device(tiny_flow: Path) -> None:
    model = load_model(tiny_flow, device="cuda", dtype="float32")
    cache, latents = model.decoder.new_cache(2, 64), new_row(model, 0).latents.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.inference_mode():
            found = velocities(model.decoder, model.flow_head, latents, 0.5, prompts=[9, 1], begins=[9, 9], cache=cache)
            guided(found, 5.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.shape == (2, *model.flow_head.latent_shape)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_pictures_of_short_types_are_close_to_those_of_float32(tiny_flow: Path, dtype: str) -> None:
    pictures = []
    for kind in ("float32", dtype):
        pipe = Pipeline.from_pretrained(tiny_flow, device="cuda", dtype=kind)
        drawn = pipe.generate_images("two red circles", seed=1, num_inference_steps=4, output_type="pt")
        pictures.append(drawn.images)
    assert pictures[1].isfinite().all()
    assert (pictures[0] - pictures[1]).abs().mean() < 0.05
