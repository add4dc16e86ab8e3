"""Wordings of the questions: a small phrase grammar, read from ``data/question_phrases.txt``.

A kind of question is asked in one of its canonical wordings, or in one that is put together: a noun in a frame ("Could
you read {noun}?"), "Which ... is printed?", or a whole phrase; then perhaps in small letters, without its mark, or with
"Answer briefly." behind it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from mm.synthetic.dice import Dice

CANONICAL = 0.35
"""Share of the questions in a canonical wording."""

_FORMS = {"whole": 4.0, "noun": 5.0, "what": 2.0}
_MARKS = re.compile(r"([(|)]|<\w+>)")

Phrase = tuple["str | Rule | Choice", ...]


@dataclass(frozen=True)
class Rule:
    """A reference to a phrase of ``[rules]``; ``doc`` depends on the kind of question."""

    name: str


@dataclass(frozen=True)
class Choice:
    """One of several phrases."""

    options: tuple[Phrase, ...]


def parse_phrase(text: str) -> Phrase:
    """The nodes of a phrase: text, rules, and choices between phrases.

    Raises:
        ValueError: a bracket without its partner.
    """
    pieces = [piece for piece in _MARKS.split(text) if piece]
    phrase, rest = _parse(pieces)
    if rest:
        raise ValueError(f"a bracket of {text!r} has no partner")
    return phrase


def _parse(pieces: list[str]) -> tuple[Phrase, list[str]]:
    """Nodes up to a bar or closing bracket of an outer choice, and what follows."""
    nodes: list[str | Rule | Choice] = []
    while pieces and pieces[0] not in {"|", ")"}:
        head, pieces = pieces[0], pieces[1:]
        if head == "(":
            options = []
            while True:
                option, pieces = _parse(pieces)
                options.append(option)
                if not pieces:
                    raise ValueError("a bracket is never closed")
                mark, pieces = pieces[0], pieces[1:]
                if mark == ")":
                    break
            nodes.append(Choice(tuple(options)))
        else:
            nodes.append(Rule(head[1:-1]) if head.startswith("<") else head)
    return tuple(nodes), pieces


@dataclass(frozen=True)
class Kind:
    """The wordings of one kind of question."""

    group: str  # which words stand for <doc>
    canonical: tuple[str, ...]
    noun: tuple[Phrase, ...]
    what: tuple[Phrase, ...]
    whole: tuple[Phrase, ...]


@lru_cache(maxsize=1)
def _read() -> dict[str, dict[str, list[str]]]:
    text = resources.files("mm.synthetic").joinpath("data/question_phrases.txt").read_text(encoding="utf-8")
    sections: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            sections[section] = {}
        elif line and not line.startswith("#"):
            name, phrases = line.split(": ", 1)
            sections[section][name] = phrases.split(";")
    return sections


@lru_cache(maxsize=1)
def _rules() -> dict[str, tuple[Phrase, ...]]:
    """Phrases of ``[rules]`` and of ``[frames]``."""
    sections = _read()
    lines = sections["rules"] | sections["frames"]
    return {name: tuple(map(parse_phrase, phrases)) for name, phrases in lines.items()}


@lru_cache(maxsize=1)
def kinds() -> dict[str, Kind]:
    """Every kind of question with its wordings."""
    found = {}
    for name, lines in _read().items():
        if name not in {"rules", "frames"}:
            parsed = {form: tuple(map(parse_phrase, lines.get(form, []))) for form in _FORMS}
            found[name] = Kind(lines["group"][0], tuple(lines.get("canonical", [])), **parsed)
    return found


def expand(dice: Dice, phrase: Phrase, group: str) -> str:
    """The text of a phrase with every choice drawn."""
    parts = []
    for node in phrase:
        if isinstance(node, str):
            parts.append(node)
            continue
        if isinstance(node, Choice):
            options: Sequence[Phrase] = node.options
        else:
            options = _rules()[f"doc_{group}" if node.name == "doc" else node.name]
        parts.append(expand(dice, dice.pick(options), group))
    return "".join(parts)


def _worded(dice: Dice, kind: Kind) -> str:
    """A wording that is put together."""
    form = dice.weighted({form: weight for form, weight in _FORMS.items() if getattr(kind, form)})
    if form == "whole":
        text = expand(dice, dice.pick(kind.whole), kind.group)
    else:
        noun = expand(dice, dice.pick(kind.noun if form == "noun" else kind.what), kind.group)
        text = expand(dice, dice.pick(_rules()[form]), kind.group).replace("$", noun)
    text = " ".join(text.split()).replace(" ?", "?")
    return text[:1].upper() + text[1:] if dice.chance(0.85) else text


def question(dice: Dice, name: str, **blanks: str) -> str:
    """A question of the kind ``name`` with its blanks filled.

    Args:
        dice: source of every choice.
        name: a key of ``kinds()``.
        blanks: what stands in the place of each ``{blank}``.
    """
    kind = kinds()[name]
    plain = dice.chance(CANONICAL) and bool(kind.canonical)
    text = dice.pick(kind.canonical) if plain else _worded(dice, kind)
    if not plain:
        if dice.chance(0.12):
            text = text.lower()
        if dice.chance(0.1):
            text = text.rstrip("?.") or text
        if dice.chance(0.04):
            text = expand(dice, dice.pick(_rules()["leads"]), kind.group) + text
        if dice.chance(0.06):
            text = (
                f"{text if text[-1] in '?.' else text + '.'} {expand(dice, dice.pick(_rules()['tails']), kind.group)}"
            )
    for blank, value in blanks.items():
        text = text.replace(f"{{{blank}}}", value)
    return text
