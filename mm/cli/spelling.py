"""What the library says of an option, in the words of the command line: --best-of where Python has best_of.

Messages of the library name its parameters (``best_of is 2``, ``engine='ray'``, ``or None``), which is right where they
are raised. What a command tells passes through here, the one place that knows both spellings.
"""

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from mm.errors import CheckpointError, MissingExtraError, MMError, OptionError

# Parameters that the command line has under another name, and its parameter.
_OTHERWISE = {
    "num_images_per_prompt": "number",
    "num_inference_steps": "steps",
    "constrain_boxes": "constrain",
    "trigger_words": "trigger",
}
# What only Python can be told.
_PHRASES = (
    (re.compile(r",? or give a device for each layer: device_map=\{.*?\}"), ""),
    (re.compile(r"\bor None\b(?: for the weights as they are)?"), "or leave it out"),
    (re.compile(r"\ba tuple of strings\b"), "texts"),
    (re.compile(r"(?<=\bgo with )device\b"), "--device"),
    (re.compile(r"(?<=: )None(?= before, )"), "nothing"),
    (re.compile(r"(?<= before, )None(?= now\b)"), "nothing"),
)
# A setting that differs from that of a run before: "sampling.top_p: None before, 0.5 now".
_SETTING = re.compile(
    r"(?:(?<=: )|(?<=; ))(?P<part>task\.|sampling\.)?(?P<name>\w+)(?=: (?:'[^']*'|\"[^\"]*\"|[^;'\"])+? before, )"
)
_QUOTED = r"""(?<!\w)(?:'[^']*'|"[^"]*")"""
# "--max-tiles 2 (--max-tiles 2)": a message that names both.
_TWICE = re.compile(r"((--[a-z-]+)(?: [^\s()-][^\s()]*)?(?: or less)?) \(\2(?: [^()]*)?\)")

_names: ContextVar[Mapping[str, str]] = ContextVar("_names", default=MappingProxyType({}))  # parameter -> option


def use_options(parameters: Iterable[Any]) -> None:
    """Tell everything from here on in the options of this command.

    Args:
        parameters: of the command, as click has them.
    """
    own = {
        parameter.name: max((word for word in parameter.opts if word.startswith("--")), key=len)
        for parameter in parameters
        if parameter.param_type_name == "option"
    }
    use_names(own)


def use_names(own: Mapping[str, str]) -> None:
    """Tell everything from here on in these options, by the parameters that they are."""
    _names.set({**own, **{python: own[name] for python, name in _OTHERWISE.items() if name in own}})


def as_typed(text: str) -> str:
    """A message with each option of the command as it is typed. What stands in quotes is the user's and stays, and so
    does a part of a path or an address.

    A name of one word is an option where a value is assigned to it (``seed=1``); elsewhere it may be plain English.
    """
    names = _names.get()
    if not names:
        return text
    for phrase, typed in _PHRASES:
        text = phrase.sub(typed, text)
    every = "|".join(map(re.escape, names))
    long = "|".join(re.escape(name) for name in names if "_" in name) or "(?!)"
    found = re.compile(
        rf"""(?<![\w./?&-])(?:(?P<name>{every})=(?P<value>{_QUOTED}|[\w.+-]*)|(?P<alone>{long})\b)|{_QUOTED}"""
    )

    def typed_word(match: re.Match[str]) -> str:
        if match["alone"]:
            return names[match["alone"]]
        if match["name"]:
            value = match["value"] if " " in match["value"] else match["value"].strip("'\"")
            return f"{names[match['name']]} {value}".rstrip()
        return match[0]

    def typed_setting(match: re.Match[str]) -> str:
        name = "task" if match.group("part", "name") == ("task.", "name") else match["name"]
        return names.get(name, match[0])

    return _TWICE.sub(r"\1", found.sub(typed_word, _SETTING.sub(typed_setting, text)))


def error_text(error: MMError) -> str:
    """What an error says, as ``as_typed``. Errors about files name what stands in them, which is no option."""
    text = str(error)
    if isinstance(error, CheckpointError | MissingExtraError):
        return text
    if isinstance(error, OptionError):  # "seed is -1", "device 'x' is unknown": an option is what it is about
        name = re.match(r"[a-z_]+(?= (?:is\b|['(]))", text)
        if name and name[0] in _names.get():
            return _names.get()[name[0]] + as_typed(text[name.end() :])
    return as_typed(text)
