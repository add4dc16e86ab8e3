"""What a user would run instead of this project, at the same sizes on the same device: transformers, timm, diffusers.

Classes are the libraries' own, with the settings that suit them best: a static cache, the one-token step compiled with
``mode="reduce-overhead"``, experts as batched or grouped products (``experts_implementation``), cuDNN's attention
switched off, which would prepare a plan for each new length. The official scripts' way to draw is written out in a few
lines over transformers' Llama: a cache that grows, one call of the model and of the head a code, launched eagerly.
Weights are random; shapes of models without a published class in transformers are those of the nearest one.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CODES = 576
CONTEXT = 1536
STEPS = 32  # that are timed together
OFFICIAL_STEPS = 64  # of the official loop, whose steps all take the same time: it is bound by launches

SMALL = {
    "vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944, "num_hidden_layers": 27,
    "num_attention_heads": 16, "num_key_value_heads": 16, "kv_lora_rank": 512, "q_lora_rank": None,
    "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 64,
    "num_experts_per_tok": 6, "n_shared_experts": 2, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
    "max_position_embeddings": 4096, "topk_method": "greedy", "n_group": 1, "topk_group": 1,
}  # fmt: skip
TINY = {
    "vocab_size": 102400, "hidden_size": 1280, "intermediate_size": 6848, "num_hidden_layers": 12,
    "num_attention_heads": 10, "num_key_value_heads": 10, "n_routed_experts": 64, "num_experts_per_tok": 6,
    "n_shared_experts": 2, "moe_intermediate_size": 896, "max_position_embeddings": 4096, "topk_method": "greedy",
    "n_group": 1, "topk_group": 1, "mlp_layer_types": ["dense"] + ["sparse"] * 11,
}  # fmt: skip
JANUS_7B = {
    "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 16384,
}  # fmt: skip
JANUS_1B = {**JANUS_7B, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
            "num_attention_heads": 16, "num_key_value_heads": 16}  # fmt: skip
NUM_CODES, CODE_WIDTH, GUIDANCE = 16384, 8, 5.0


class Rows(Protocol):
    """The part of ``benchmarks.gpu.Rows`` that is used here."""

    device: torch.device
    dtype: torch.dtype

    def row(
        self, job: str, work: Callable[..., dict[str, Any]], ready: Callable[[], tuple[Any, ...]] | None = None
    ) -> None:
        """Measure and print one row; ``ready`` compiles before, while others measure, and gives ``work`` arguments."""

    def seconds(self, work: Callable[[], object], repeat: int | None = None) -> float:
        """The median of a few runs."""


class Model(nn.Module):
    """A language model of transformers and its head, which some classes lack."""

    def __init__(self, kind: str, shape: dict[str, Any], rows: Rows) -> None:
        super().__init__()
        import transformers

        config = getattr(transformers, f"{kind}Config")(**shape)
        config.dtype = rows.dtype
        with torch.device(rows.device):
            if hasattr(transformers, f"{kind}ForCausalLM"):
                whole = getattr(transformers, f"{kind}ForCausalLM")(config)
                self.model, self.head = whole.model, whole.lm_head
            else:
                from transformers.models.deepseek_ocr2 import modeling_deepseek_ocr2

                self.model = getattr(modeling_deepseek_ocr2, f"{kind}Model")(config)
                self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.config = config
        self.to(rows.dtype).eval().requires_grad_(False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.02)

    def forward(self, ids: Tensor, cache: Any, place: Tensor) -> Tensor:
        """(B, T) tokens at ``place`` (T,) -> (B, V) logits after the last one."""
        hidden = self.model(
            input_ids=ids,
            past_key_values=cache,
            cache_position=place,
            position_ids=place[None],
            use_cache=True,
        ).last_hidden_state
        out: Tensor = self.head(hidden[:, -1])
        return out

    def static_cache(self, length: int) -> Any:
        """A cache of fixed length."""
        import transformers

        return transformers.StaticCache(config=self.config, max_cache_len=length)

    def use_experts(self, form: str) -> None:
        """Set the form of the products of experts, where the model has some."""
        if hasattr(self.config, "n_routed_experts") or hasattr(self.config, "num_experts"):
            self.model.set_experts_implementation(form)


def versions() -> str:
    """For the names of rows."""
    import transformers

    return f"transformers {transformers.__version__}"


def language(rows: Rows, job: str, kind: str, shape: dict[str, Any], *, context: int = CONTEXT) -> None:
    """Prefill and decoding by transformers' class: eager, then the step compiled."""
    torch.backends.cuda.enable_cudnn_sdp(False)
    model = Model(kind, shape, rows)

    def numbers(count: int, tokens: int) -> Tensor:
        return torch.randint(shape["vocab_size"], (count, tokens), device=rows.device)

    def prefill(count: int) -> Callable[[], dict[str, Any]]:
        @torch.inference_mode()
        def work() -> dict[str, Any]:
            model.use_experts("grouped_mm")
            place = torch.arange(context, device=rows.device)

            def run() -> None:
                model(numbers(count, context), model.static_cache(context + 64), place)

            run()
            return {"value": 1e3 * rows.seconds(run), "unit": "ms"}

        return work

    def decode(label: str, count: int, step: Any) -> None:
        form = "batched_mm" if count == 1 else "grouped_mm"
        places = iter(range(context, context + 4 * STEPS + 16))

        def run(cache: Any, steps: int) -> None:
            for _ in range(steps):
                step(numbers(count, 1), cache, torch.tensor([next(places)], device=rows.device))

        @torch.inference_mode()
        def ready() -> tuple[Any, ...]:
            model.use_experts(form)
            cache = model.static_cache(context + 4 * STEPS + 64)
            model(numbers(count, context), cache, torch.arange(context, device=rows.device))
            return cache, rows.seconds(lambda: run(cache, 8), 1)

        @torch.inference_mode()
        def work(cache: Any, first: float) -> dict[str, Any]:
            taken = rows.seconds(lambda: run(cache, STEPS), 3) / STEPS
            return {"value": count / taken, "unit": "tok/s", "step_ms": 1e3 * taken, "first_run_seconds": first}

        rows.row(f"{label}: {job} decode, {count} row{'s' if count > 1 else ''}", work, ready)

    for count in (1, 16):
        decode(f"{versions()} eager", count, model)
        rows.row(f"{versions()} eager: {job} prefill, {count} x {context:,}", prefill(count))
    for count in (1, 16):
        decode(f"{versions()} compiled", count, torch.compile(model, mode="reduce-overhead"))


class Drawing(nn.Module):
    """Llama of transformers and the generation side of Janus: head, code embedding, aligner."""

    def __init__(self, shape: dict[str, Any], rows: Rows) -> None:
        super().__init__()
        self.llama = Model("Llama", shape, rows)
        width = shape["hidden_size"]
        with torch.device(rows.device):
            self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, NUM_CODES))
            self.embedding = nn.Embedding(NUM_CODES, CODE_WIDTH)
            self.aligner = nn.Sequential(nn.Linear(CODE_WIDTH, width), nn.GELU(), nn.Linear(width, width))
        self.to(rows.dtype).eval().requires_grad_(False)

    def choose(self, hidden: Tensor) -> Tensor:
        """(2 B, D) of conditional and unconditional rows in turn -> codes (B,)."""
        logits = self.head(hidden)
        away, wanted = logits[1::2], logits[0::2]
        probs = F.softmax(away + GUIDANCE * (wanted - away), dim=-1)
        return torch.multinomial(probs, num_samples=1)[:, 0]

    def embed(self, codes: Tensor) -> Tensor:
        """Codes (B,) -> (2 B, 1, D)."""
        out: Tensor = self.aligner(self.embedding(codes.repeat_interleave(2)))[:, None]
        return out

    def forward(self, embeds: Tensor, cache: Any, place: Tensor) -> Tensor:
        """One more position (2 B, 1, D) at ``place`` (1,) -> hidden states (2 B, D)."""
        out: Tensor = self.llama.model(
            inputs_embeds=embeds, past_key_values=cache, cache_position=place, position_ids=place[None], use_cache=True
        ).last_hidden_state[:, -1]
        return out


def drawing(rows: Rows, job: str, shape: dict[str, Any], *, prompt: int = 48) -> None:
    """Pictures of codes: the official script's loop, and a static cache with the step compiled."""
    torch.backends.cuda.enable_cudnn_sdp(False)
    model = Drawing(shape, rows)

    def start(pictures: int) -> Tensor:
        ids = torch.randint(shape["vocab_size"], (2 * pictures, prompt), device=rows.device)
        out: Tensor = model.llama.model.get_input_embeddings()(ids)
        return out

    def official(pictures: int) -> Callable[[], dict[str, Any]]:
        @torch.inference_mode()
        def work() -> dict[str, Any]:
            def run() -> None:
                embeds, cache = start(pictures), None
                for _ in range(OFFICIAL_STEPS):
                    out = model.llama.model(inputs_embeds=embeds, use_cache=True, past_key_values=cache)
                    cache = out.past_key_values
                    embeds = model.embed(model.choose(out.last_hidden_state[:, -1]))

            run()
            step = rows.seconds(run, 3) / OFFICIAL_STEPS
            return {"value": CODES * step, "unit": "s", "step_ms": 1e3 * step, "steps_timed": OFFICIAL_STEPS}

        return work

    def compiled(pictures: int, label: str) -> None:
        step = torch.compile(model, mode="reduce-overhead")

        def run(codes: Tensor, cache: Any, first: int, steps: int) -> None:
            for position in range(first, first + steps):
                place = torch.tensor([position], device=rows.device)
                codes.copy_(model.choose(step(model.embed(codes), cache, place)))

        @torch.inference_mode()
        def ready() -> tuple[Any, ...]:
            cache = model.llama.static_cache(prompt + CODES + 64)
            places = torch.arange(prompt, device=rows.device)
            hidden = model.llama.model(
                inputs_embeds=start(pictures), past_key_values=cache, cache_position=places, position_ids=places[None]
            ).last_hidden_state[:, -1]
            codes = model.choose(hidden)
            return codes, cache, rows.seconds(lambda: run(codes, cache, prompt, 8), 1)

        @torch.inference_mode()
        def work(codes: Tensor, cache: Any, first: float) -> dict[str, Any]:
            taken = rows.seconds(lambda: run(codes, cache, prompt + CODES // 2, STEPS), 3) / STEPS  # at the mean length
            return {"value": CODES * taken, "unit": "s", "step_ms": 1e3 * taken, "first_run_seconds": first}

        rows.row(f"{versions()} compiled: {job}, {label}", work, ready)

    for pictures, label in ((1, "1 image"), (16, "16 images")):
        rows.row(f"official loop over {versions()}: {job}, {label}", official(pictures))
    for pictures, label in ((1, "1 image"), (16, "16 images")):
        compiled(pictures, label)


def towers(rows: Rows, *, siglip: dict[str, Any] | None = None, sam: dict[str, Any] | None = None) -> None:
    """timm's own towers, eager and compiled."""
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_sam import VisionTransformerSAM

    sizes: dict[str, tuple[type[nn.Module], dict[str, Any], tuple[int, ...], str]] = {
        "SigLIP-SO400M": (
            VisionTransformer,
            siglip or {"img_size": 384, "patch_size": 14, "embed_dim": 1152, "depth": 27, "num_heads": 16,
                       "mlp_ratio": 4304.5 / 1152, "class_token": False, "global_pool": "", "num_classes": 0},
            (10, 64), "tiles",
        ),
        "SAM-B": (
            VisionTransformerSAM,
            sam or {"img_size": 1024, "patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12,
                    "use_rel_pos": True, "window_size": 14, "global_attn_indexes": (2, 5, 8, 11), "num_classes": 0},
            (1, 8), "images",
        ),
    }  # fmt: skip
    for job, (kind, shape, counts, unit) in sizes.items():
        with torch.device(rows.device):
            tower: Any = kind(**shape)
        tower = tower.to(rows.dtype).eval().requires_grad_(False)
        for compiled in (False, True):
            encode = torch.compile(tower) if compiled else tower
            for count in counts:

                def ready(count: int = count, encode: Any = encode, side: int = shape["img_size"]) -> tuple[Any, ...]:
                    views = torch.randn(count, 3, side, side, device=rows.device, dtype=rows.dtype)
                    with torch.inference_mode():
                        return views, rows.seconds(lambda: encode(views), 1)

                def work(views: Tensor, first: float, encode: Any = encode, unit: str = unit) -> dict[str, Any]:
                    with torch.inference_mode():
                        taken = rows.seconds(lambda: encode(views), 7)
                    return {"value": len(views) / taken, "unit": f"{unit}/s", "first_run_seconds": first}

                label = f"{count} {unit if count > 1 else unit[:-1]}"
                rows.row(f"timm {'compiled' if compiled else 'eager'}: {job}, {label}", work, ready)


def painter(rows: Rows, *, widths: tuple[int, ...] = (128, 128, 256, 256, 512), latent: int = 256) -> None:
    """diffusers' decoder of the image tokenizer, eager and compiled in the layout that suits it."""
    from diffusers.models.autoencoders.vae import Decoder

    with torch.device(rows.device):
        decoder = Decoder(
            in_channels=latent,
            out_channels=3,
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (len(widths) - 1),
            block_out_channels=widths,
            layers_per_block=2,
        )
    decoder = decoder.to(rows.dtype).eval().requires_grad_(False)
    for compiled in (False, True):
        layout = torch.channels_last if compiled else torch.contiguous_format
        way: Any = torch.compile(decoder.to(memory_format=layout)) if compiled else decoder
        for count, label in ((1, "1 image"), (16, "16 images")):

            def ready(count: int = count, way: Any = way, layout: Any = layout) -> tuple[Any, ...]:
                given = torch.randn(count, latent, 24, 24, device=rows.device, dtype=rows.dtype).to(
                    memory_format=layout
                )
                with torch.inference_mode():
                    return given, rows.seconds(lambda: way(given), 1)

            def work(given: Tensor, first: float, way: Any = way) -> dict[str, Any]:
                with torch.inference_mode():
                    taken = rows.seconds(lambda: way(given), 7)
                return {"value": 1e3 * taken, "unit": "ms", "first_run_seconds": first}

            rows.row(f"diffusers {'compiled' if compiled else 'eager'}: VQ decode, {label}", work, ready)
