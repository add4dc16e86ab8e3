"""What an image costs DeepSeek-VL 7B's two encoders, beside SigLIP alone and timm's own SAM, with random weights.

    python -m benchmarks.two_towers [--device cuda] [--dtype bfloat16] [--repeat 5]

Sizes are those of deepseek-vl-7b-chat: SigLIP-L at 384 pixels, SAM-B at 1024. timm's encoder is the same network
without the published second stream (two convolutions and a neck), and has the position bias of a global block written
out for all pairs. All are timed in turn, so that a change in the machine's load touches each. Prints a Markdown table.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch

from benchmarks.random_model import random_model
from mm.hub import find_config


def median_seconds(jobs: dict[str, Callable[[], object]], device: torch.device, repeat: int) -> dict[str, float]:
    """Of each job, run in turn ``repeat`` times after one warm-up."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeat + 1):
        for name, job in jobs.items():
            begin = time.perf_counter()
            job()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                found[name].append(time.perf_counter() - begin)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)

    model = random_model(find_config("deepseek-ai/deepseek-vl-7b-chat").folder, torch.device("meta"), dtype)
    vision = model.vision.to_empty(device=device)
    plain = timm.create_model("samvit_base_patch16", img_size=1024, device=device, dtype=dtype).eval()
    for module in (vision, plain):
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.02)
    large = torch.rand(1, 3, 1024, 1024, device=device, dtype=dtype)
    high, low, shrink = (vision.get_submodule(name) for name in ("high", "low", "shrink"))
    small = shrink(large)
    jobs: dict[str, Callable[[], object]] = {
        "SigLIP-L at 384": lambda: low(small),
        "SAM-B at 1024": lambda: high(large),
        "SAM-B at 1024, timm's": lambda: plain.forward_features(large),
        "both, as DeepSeek-VL 7B sees": lambda: vision(large),
    }
    seconds = median_seconds(jobs, device, options.repeat)
    alone = seconds["SigLIP-L at 384"]
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    print(f"{device}{threads}, {options.dtype}, torch {torch.__version__}, median of {options.repeat}\n")
    print("| an image through | ms | times SigLIP alone |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {1e3 * value:.0f} | {value / alone:.1f} |")


if __name__ == "__main__":
    main()
