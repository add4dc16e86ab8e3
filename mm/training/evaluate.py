"""A quick check at the end of training: held-out samples under teacher forcing.

An answer all of whose tokens are the most likely ones given the right ones before them is exactly what greedy decoding
writes, so "exact" here equals greedy exact match; the token error is a lower bound of the character error rate.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mm.training.feed import to_device
from mm.training.objective import StepObjective
from mm.training.ring import Ring


@dataclass
class _Tally:
    answers: int = 0
    exact: int = 0
    tokens: int = 0
    wrong: int = 0

    def add(self, tokens: int, wrong: int) -> None:
        self.answers += 1
        self.exact += wrong == 0
        self.tokens += tokens
        self.wrong += wrong


@torch.no_grad()
def evaluate(
    objective: StepObjective, rings: list[Ring], kinds: tuple[str, ...], *, device: torch.device, autocast: bool
) -> dict[str, dict[str, float]]:
    """Scores of every sample in the rings, by kind.

    Returns:
        ``"<kind>/longest"`` (a row's longest answer, the transcription where there is one) and ``"<kind>/other"``, each
        with ``answers``, ``exact`` (share) and ``token_error`` (share of tokens).
    """
    objective.eval()
    tallies: dict[str, _Tally] = {}
    with torch.compiler.set_stance("force_eager"):
        for ring in rings:
            for first in range(0, ring.num_written, ring.bucket.rows):
                slots = np.arange(first, min(first + ring.bucket.rows, ring.num_written))
                rows = ring.read(slots)
                batch, _ = to_device(rows, device)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
                    losses = objective(batch, 0.0)
                wrong = losses.wrong.cpu().numpy()
                for kind, labels, errors in zip(rows.kinds, rows.labels, wrong, strict=True):
                    _tally(tallies, kinds[int(kind)], labels, errors)
    objective.train()
    return {
        name: {"answers": t.answers, "exact": t.exact / t.answers, "token_error": t.wrong / t.tokens}
        for name, t in sorted(tallies.items())
    }


def _tally(tallies: dict[str, _Tally], kind: str, labels: NDArray[np.int16], errors: NDArray[np.bool_]) -> None:
    """Adds the answers of one row: labels (T,) and errors (T - 1,), where errors[t] is about labels[t + 1]."""
    answers = [(stop - start, int(errors[start - 1 : stop - 1].sum())) for start, stop in answer_runs(labels)]
    longest = max(range(len(answers)), key=lambda i: answers[i][0], default=-1)
    for index, (tokens, wrong) in enumerate(answers):
        name = f"{kind}/{'longest' if index == longest else 'other'}"
        tallies.setdefault(name, _Tally()).add(tokens, wrong)


def answer_runs(labels: NDArray[np.int16]) -> list[tuple[int, int]]:
    """Start and stop of every answer in (T,) labels: the runs without the ignore value."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], labels >= 0, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
