"""One recorded value against ours: a row that says what, how far apart, which limit, and the verdict."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mm.evaluation.recording import RecordedTensor, tensor_sha256

Verdict = Literal["ok", "differs", "not compared"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """The comparison of one field of one conversation.

    Attributes:
        case: the conversation's id in the recording.
        field: what was compared.
        recorded, ours: the two values, shortened for display.
        difference: where ``limit`` is 0 the number of entries that differ, else the largest absolute difference; None
            where the two cannot be subtracted (another shape, not a number).
        limit: the largest difference that passes; None for fields that are not compared.
        verdict: "ok", "differs", or "not compared" for a field this version does not know.
        note: what else there is to say.
    """

    case: str
    field: str
    recorded: str
    ours: str
    difference: float | None
    limit: float | None
    verdict: Verdict
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def judge(
    case: str, field: str, recorded: str, ours: str, difference: float | None, limit: float, note: str = ""
) -> Row:
    """A row whose verdict follows from the numbers; what is not finite differs."""
    if difference is not None and not math.isfinite(difference):
        difference, note = None, note or "not a number"
    passed = difference is not None and difference <= limit
    verdict: Verdict = "ok" if passed else "differs"
    return Row(
        case=case,
        field=field,
        recorded=recorded,
        ours=ours,
        difference=difference,
        limit=limit,
        verdict=verdict,
        note=note,
    )


def unknown(case: str, field: str, recorded: str) -> Row:
    """A recorded field that nothing here can compute."""
    return Row(case=case, field=field, recorded=recorded, ours="", difference=None, limit=None, verdict="not compared")


def compare_values(case: str, field: str, recorded: object, ours: object) -> Row:
    """Numbers, strings and lists that must be equal; of two lists of one length the differing entries are counted."""
    if isinstance(recorded, list) and isinstance(ours, list) and len(recorded) == len(ours):
        difference = sum(a != b for a, b in zip(recorded, ours, strict=True))
    else:
        difference = int(recorded != ours)
    return judge(case, field, shorten(recorded), shorten(ours), float(difference), 0.0)


def compare_exact(case: str, field: str, recorded: RecordedTensor, ours: Tensor, ties: Sequence[int] = ()) -> Row:
    """Integers that must be equal; rows in ``ties`` may differ, and it is said when they do."""
    if tuple(ours.shape) != recorded.shape:
        return _misshapen(case, field, recorded, ours)
    kept, theirs, numbers = _stored_rows(recorded, ours)
    kept = kept.to(theirs.dtype)  # a mask of booleans and one of 0 and 1 are the same, in their sha256 too
    wrong = (kept != theirs).any(dim=-1) if theirs.ndim > 1 else kept != theirs
    excused = _excused(wrong, numbers, ties)
    shown = f"{_shape(recorded.shape)} {digest(recorded.values)}", f"{_shape(ours.shape)} {digest(kept)}"
    elements = (kept != theirs)[~excused].sum()
    return judge(case, field, *shown, float(elements), 0.0, _tie_note(excused))


def compare_close(
    case: str, field: str, recorded: RecordedTensor, ours: Tensor, limit: float, ties: Sequence[int] = ()
) -> Row:
    """Floats whose largest difference is at most ``limit``.

    Where only rows are stored, the recorded means of the complete tensor stand in for the rest: the mean of a tensor
    (and of its absolute values) moves by no more than its largest element does.
    """
    if tuple(ours.shape) != recorded.shape:
        return _misshapen(case, field, recorded, ours)
    kept, theirs, numbers = _stored_rows(recorded, ours)
    gaps = (kept.double() - theirs.double()).abs()
    worst = gaps.amax(dim=-1) if gaps.ndim > 1 else gaps  # (rows,)
    excused = _excused(~(worst <= limit), numbers, ties)
    judged = worst[~excused]
    difference = _largest(judged)
    if not excused.any():
        for key, value in (("mean", ours.double().mean()), ("abs_mean", ours.double().abs().mean())):
            if isinstance(recorded.facts.get(key), float):
                difference = _larger(difference, abs(float(value) - recorded.facts[key]))
    shown = _floats(recorded.shape, theirs), _floats(ours.shape, kept)
    return judge(case, field, *shown, difference, limit, _tie_note(excused))


def compare_bits(case: str, field: str, recorded: RecordedTensor, ours: Tensor) -> Row:
    """A tensor that must be equal to the bit, by the sha256 of its bytes; of images the wrong views are counted."""
    if tuple(ours.shape) != recorded.shape:
        return _misshapen(case, field, recorded, ours)
    if "sha256" not in recorded.facts:
        return compare_close(case, field, recorded, ours, 0.0)
    mine = tensor_sha256(ours)
    wrong = float(mine != recorded.facts["sha256"])
    tiles = recorded.facts.get("tile_sha256")
    note = ""
    if wrong and isinstance(tiles, list):
        blocks = ours.reshape(len(tiles), -1)
        wrong = max(1.0, float(sum(tensor_sha256(b) != t for b, t in zip(blocks, tiles, strict=True))))
        kept, theirs, _ = _stored_rows(recorded, ours)
        note = f"of {len(tiles)} views; largest difference of the stored rows {float((kept - theirs).abs().max()):.1e}"
    shown = f"{_shape(recorded.shape)} {recorded.facts['sha256'][:8]}", f"{_shape(ours.shape)} {mine[:8]}"
    return judge(case, field, *shown, wrong, 0.0, note)


def shorten(value: object, width: int = 40) -> str:
    """One line for display."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return text if len(text) <= width else text[: width - 3] + "..."


def digest(tensor: Tensor) -> str:
    """The first eight letters of a tensor's sha256."""
    return tensor_sha256(tensor)[:8]


def _stored_rows(recorded: RecordedTensor, ours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Our rows, the recorded ones, and their numbers; tensors of one axis count as rows of one element."""
    ours = ours.detach().cpu()
    if recorded.rows is not None:
        return ours.reshape(-1, ours.shape[-1])[recorded.rows], recorded.values, recorded.rows
    if ours.ndim == 1:
        return ours, recorded.values, torch.arange(ours.shape[0])
    kept = ours.reshape(-1, ours.shape[-1])
    return kept, recorded.values.reshape(kept.shape), torch.arange(kept.shape[0])


def _excused(wrong: Tensor, numbers: Tensor, ties: Sequence[int]) -> Tensor:
    return wrong & torch.isin(numbers, torch.tensor(list(ties), dtype=torch.int64))


def _tie_note(excused: Tensor) -> str:
    count = int(excused.sum())
    return f"{count} token{'s' if count > 1 else ''} left out: routed by a near tie" if count else ""


def _largest(gaps: Tensor) -> float:
    return float(gaps.max()) if gaps.numel() else 0.0


def _larger(first: float, second: float) -> float:
    return math.nan if math.isnan(first) or math.isnan(second) else max(first, second)


def _misshapen(case: str, field: str, recorded: RecordedTensor, ours: Tensor) -> Row:
    return judge(case, field, _shape(recorded.shape), _shape(ours.shape), None, 0.0, "another shape")


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _floats(shape: Sequence[int], rows: Tensor) -> str:
    return f"{_shape(shape)} norm {float(rows.double().norm()):.6g}"
