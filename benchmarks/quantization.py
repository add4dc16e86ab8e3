"""What each quantisation costs and saves, on the bundled models: python -m benchmarks.quantization

One row a kind. Bytes are those of the weights as they lie in memory. The other columns compare with the same model in
its own type, on the CPU in float32:

* logits moved: the norm of their difference over their norm, mean over positions;
* same choice: of positions at which both have seen the same tokens (the unquantised model's own greedy answer, or the
  codes that it drew), those where both prefer the same next one;
* same answers: greedy answers that are the same to the last token, each model going on from its own tokens.

nano-vl2 reads, answers and describes the pictures of examples/; nano-janus draws the prompts below.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm import Pipeline
from mm.chat import user_message
from mm.language.packing import KINDS
from mm.transforms.split import weight_bytes

EXAMPLES = Path(__file__).parent.parent / "examples"
QUESTIONS = (
    ("receipt.png", "What is the total?"),
    ("receipt.png", "Read all the text in the image."),
    ("page.png", "Read all the text in the image."),
    ("form.png", "Read all the text in the image."),
    ("chart.png", "Which bar is the highest?"),
    ("chart.png", "Read the table of this chart."),
    ("scene.png", "Describe the image."),
    ("scene.png", "How many objects are there?"),
)
PROMPTS = (
    "a red circle",
    "two red circles left of a blue star",
    "a green square above a yellow triangle",
    "three small blue squares",
)
TOKENS = 128


@torch.inference_mode()
def answers(pipe: Pipeline) -> list[list[int]]:
    """Greedy answers to the questions."""
    return [pipe.chat(EXAMPLES / n, q, max_new_tokens=TOKENS, temperature=0).token_ids for n, q in QUESTIONS]


@torch.inference_mode()
def text_logits(pipe: Pipeline, tokens: list[list[int]]) -> list[Tensor]:
    """(T, V) of each answer, given its tokens."""
    found = []
    for (name, question), answer in zip(QUESTIONS, tokens, strict=True):
        inputs = pipe.processor.process((user_message(question, [EXAMPLES / name]),))
        model = pipe.model
        prompt = model.embed_inputs([inputs])[0]
        embeds = torch.cat((prompt, model.decoder.embed(torch.tensor(answer[:-1], dtype=torch.int64))))
        hidden = model.decoder(embeds.unsqueeze(0))[0, len(prompt) - 1 :]
        found.append(model.decoder.logits(hidden))
    return found


def drawn(pipe: Pipeline) -> list[Tensor]:
    """The codes (h * w,) of a picture of each prompt, sampled with the prompt's number as seed."""
    found = []
    for seed, prompt in enumerate(PROMPTS):
        pictures = pipe.generate_images(prompt, seed=seed, output_type="pt").images
        found.append(pipe.encode_image(_as_picture(pictures)).flatten())
    return found


def _as_picture(pixels: Any) -> Any:
    from PIL import Image

    return Image.fromarray((pixels[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy())


@torch.inference_mode()
def code_logits(pipe: Pipeline, codes: list[Tensor]) -> list[Tensor]:
    """(N, K) of each picture, given its codes."""
    found = []
    model, head = pipe.model, pipe.model.image_head
    assert head is not None
    for prompt, picture in zip(PROMPTS, codes, strict=True):
        ids = pipe.processor.drawing_prompt(prompt).conditional
        prefix = model.decoder.embed(ids)
        embeds = torch.cat((prefix, head.embed(picture[None, :-1])[0]))
        hidden = model.decoder(embeds.unsqueeze(0))[0, len(prefix) - 1 :]
        found.append(head.logits(hidden))
    return found


def beside(before: list[Tensor], after: list[Tensor]) -> dict[str, float]:
    """How far logits have moved, and how often the best one is the same."""
    old, new = torch.cat(before), torch.cat(after)
    return {
        "positions": len(old),
        "logits_moved": ((new - old).norm(dim=-1) / old.norm(dim=-1)).mean().item(),
        "same_choice": (old.argmax(-1) == new.argmax(-1)).float().mean().item(),
    }


def rows() -> list[dict[str, Any]]:
    """One of each model and kind."""
    found = []
    for name in ("nano-vl2", "nano-janus"):
        plain = Pipeline.from_pretrained(name, device="cpu", dtype="float32")
        reads = name == "nano-vl2"
        told: Any = answers(plain) if reads else drawn(plain)
        logits = text_logits if reads else code_logits
        before = logits(plain, told)
        for kind in (None, *KINDS):
            pipe = Pipeline.from_pretrained(name, device="cpu", dtype="float32", quantization=kind)
            half = Pipeline.from_pretrained(name, device="cpu", dtype="bfloat16", quantization=kind)
            row: dict[str, Any] = {
                "model": name,
                "kind": kind or "as they are",
                "layer_bytes": sum(weight_bytes(layer) for layer in half.model.decoder.model.layers),
                "model_bytes": weight_bytes(half.model),
                **beside(before, logits(pipe, told)),
            }
            if reads:
                row["same_answers"] = [a == b for a, b in zip(told, answers(pipe), strict=True)].count(True)
            found.append(row)
            pipe.engine.close()
            half.engine.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What each quantisation costs and saves, on the bundled models.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = rows()
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print("| model | weights | layers, MB | whole model, MB | logits moved | same choice | same answers |")
    print("|---|---|---|---|---|---|---|")
    for row in found:
        same = f"{row['same_answers']} of {len(QUESTIONS)}" if "same_answers" in row else "-"
        print(
            f"| {row['model']} | {row['kind']} | {row['layer_bytes'] / 1e6:.1f} | {row['model_bytes'] / 1e6:.1f} | "
            f"{row['logits_moved']:.2%} | {row['same_choice']:.2%} of {row['positions']:,} | {same} |"
        )


if __name__ == "__main__":
    main()
