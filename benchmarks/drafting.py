"""Does V3's extra layer pay? Drafts of the next token but one, beside plain greedy decoding.

    python -m benchmarks.drafting                          a toy of V3's design, trained here on this package's source
    python -m benchmarks.drafting --model FOLDER TEXT      a checkpoint that has the layer

The loop is mm/evaluation/drafting.py. The toy says how often such a layer is right on text that is easy to guess, and
what a step over two tokens costs where a step is mostly overhead. It says nothing of the published model.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import mm
from mm.config import DecoderConfig, LatentAttentionConfig, MoEConfig, RopeConfig
from mm.devices import resolve_device
from mm.evaluation.drafting import Drafting, measure_drafting
from mm.language.decoder import Decoder
from mm.language.moe import MoE
from mm.language.prediction import Predictor

TOY = DecoderConfig(
    vocab_size=256,
    hidden_size=128,
    mlp_width=384,
    num_layers=3,
    rms_norm_eps=1e-6,
    max_positions=1024,
    rope=RopeConfig(theta=10000.0, scaling=None),
    attention=LatentAttentionConfig(
        num_heads=4,
        q_lora_rank=64,
        kv_lora_rank=48,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
        bias=False,
    ),
    moe=MoEConfig(
        num_experts=8,
        num_experts_per_token=2,
        expert_width=96,
        num_shared_experts=1,
        scoring="sigmoid",
        method="noaux_tc",
        num_groups=4,
        num_groups_per_token=2,
        normalize_weights=True,
        scaling_factor=2.5,
        first_moe_layer=1,
        layer_frequency=1,
    ),
)
ROWS, LENGTH = 16, 128  # of a training batch
PREDICTION_WEIGHT = 0.3  # of the extra layer's loss, as V3 was trained at first (arXiv 2412.19437, section 4.2)


@dataclass(frozen=True)
class Toy:
    """A trained toy and text that it has not seen."""

    decoder: Decoder
    predictor: Predictor
    held_out: Tensor  # (N,) int64 bytes
    loss: float  # of the last steps, nats a byte


def source_bytes() -> Tensor:
    """The package's Python files, one after the other."""
    files = sorted(Path(mm.__file__).parent.rglob("*.py"))
    return torch.frombuffer(bytearray(b"".join(path.read_bytes() for path in files)), dtype=torch.uint8).long()


def train(steps: int, device: torch.device, seed: int = 0) -> Toy:
    """Model and extra layer together; the layer has the model's embedding and head, as published."""
    torch.manual_seed(seed)
    text = source_bytes()
    seen, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    decoder, predictor = Decoder(TOY).to(device), Predictor(TOY).to(device)
    predictor.decoder.model.embed_tokens = decoder.model.embed_tokens
    predictor.decoder.lm_head = decoder.lm_head
    for module in (*decoder.modules(), *predictor.modules()):
        if isinstance(module, MoE):
            module.dispatch = "dense"
    parameters = list({id(p): p for p in (*decoder.parameters(), *predictor.parameters()) if p.requires_grad}.values())
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    losses = []
    for _ in range(steps):
        starts = torch.randint(0, len(seen) - LENGTH - 2, (ROWS,))
        rows = torch.stack([seen[start : start + LENGTH + 2] for start in starts]).to(device)  # (B, T + 2)
        hidden = decoder(decoder.embed(rows[:, :-2]))
        next_one = F.cross_entropy(decoder.logits(hidden).flatten(0, 1), rows[:, 1:-1].flatten())
        guess = predictor.logits(predictor(rows[:, 1:-1], hidden))
        next_two = F.cross_entropy(guess.flatten(0, 1), rows[:, 2:].flatten())
        optimizer.zero_grad()
        (next_one + PREDICTION_WEIGHT * next_two).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(next_one.item())
    for module in (*decoder.modules(), *predictor.modules()):
        if isinstance(module, MoE):
            module.dispatch = "auto"
    return Toy(decoder.eval(), predictor.eval(), held_out, sum(losses[-50:]) / len(losses[-50:]))


def measure_toy(toy: Toy, prompts: int, count: int) -> list[Drafting]:
    """Answers to prompts of the held-out text, evenly spread."""
    places = torch.linspace(0, len(toy.held_out) - 200, prompts).long().tolist()
    found = []
    for place in places:
        prompt = toy.held_out[place : place + 128].tolist()
        found.append(measure_drafting(toy.decoder, toy.predictor, prompt, count))
    return found


def report(found: list[Drafting]) -> str:
    """One line of what was measured."""
    tokens = sum(len(item.tokens) for item in found)
    accepted = sum(item.accepted for item in found) / len(found)
    per_step = sum(item.tokens_per_step for item in found) / len(found)
    seconds, plain = sum(item.seconds for item in found), sum(item.plain_seconds for item in found)
    equal = sum(item.equal for item in found)
    return (
        f"{len(found)} answers, {tokens} tokens: {equal} equal to greedy decoding; {accepted:.0%} of the drafts right, "
        f"{per_step:.2f} tokens a step; {tokens / plain:.0f} tokens/s plain, {tokens / seconds:.0f} with drafts "
        f"({plain / seconds:.2f}x)"
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="The capital of France is", help="prompt for --model")
    parser.add_argument("--model", type=Path, help="folder of a checkpoint with the layer; without it: the toy")
    parser.add_argument("--steps", type=int, default=500, help="training steps of the toy")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    if options.model is not None:
        from mm.families.table import load_model, load_processor
        from mm.families.text import load_predictor

        decoder = load_model(options.model, device=options.device, dtype=options.dtype).decoder
        predictor = load_predictor(options.model, device=options.device, dtype=options.dtype)
        ids = load_processor(options.model).process_prompt(options.text, [], apply_template=False).input_ids.tolist()
        print(report([measure_drafting(decoder, predictor, ids, options.tokens)]))
        return
    started = time.perf_counter()
    toy = train(options.steps, resolve_device(options.device))
    print(f"toy: {options.steps} steps in {time.perf_counter() - started:.0f} s, {toy.loss:.2f} nats a byte")
    print(report(measure_toy(toy, options.prompts, options.tokens)))


if __name__ == "__main__":
    main()
