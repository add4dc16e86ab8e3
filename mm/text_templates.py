"""Chat templates of the language models, as data, and which of them a checkpoint's own template is.

A published template is a Jinja program. It is never run: it is read for the strings that it can write, and it is known
when these are the strings of one of the formats below. Sources: the model cards of DeepSeek LLM, V2 and Coder-V2
("User: ..."), of Coder ("### Instruction:"), of V2-Chat-0628, V2.5, V3, R1 and R1-Distill (role tokens).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Thinking = Literal["none", "free", "forced"]

USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
END_OF_SENTENCE, BEGIN_OF_SENTENCE = "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"
EOT = "<|EOT|>"
THINK, END_THINK = "<think>", "</think>"

# What a prefix, the gap and a suffix are marked with (DeepSeek-Coder, arXiv 2401.14196, section 3.1.2).
FILL_BEGIN, FILL_HOLE, FILL_END = "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"

_CODER_SYSTEM = (
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, and you "
    "only answer questions related to computer science. For politically sensitive questions, security and privacy "
    "issues, and other non-computer science questions, you will refuse to answer\n"
)


# Names of fields and roles that templates compare with, and separators of tool calls.
_KEYS = frozenset(
    [
        "",
        "role",
        "content",
        "user",
        "assistant",
        "system",
        "tool",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "type",
    ]
)


@dataclass(frozen=True, kw_only=True)
class TextTemplate:
    """How turns become one prompt, after the begin token.

    Attributes:
        system: what stands first where the conversation has no system message.
        after_system: behind a system message.
        before_question, after_question, before_answer, after_answer: around each turn.
        after_end: behind the end token of an answer.
        opening: where the model begins its answer.
        end_token: of an answer; None: the tokenizer's.
        controls: strings in the above that are control tokens.
        thinking: "free": an answer may begin with ``<think>``; "forced": the opening begins it. What was thought is
            left out of a conversation that goes on.
        writes: strings that a published template of this format writes, all of them.
        may_write: further ones that change nothing in conversations without tools.
    """

    system: str = ""
    after_system: str = ""
    before_question: str
    after_question: str = ""
    before_answer: str
    after_answer: str = ""
    after_end: str = ""
    opening: str
    end_token: str | None = None
    controls: frozenset[str] = frozenset()
    thinking: Thinking = "none"
    writes: frozenset[str]
    may_write: frozenset[str] = _KEYS


_TOKEN_MAY_WRITE = _KEYS | {"\n", "\n\n", "```json", "```", BEGIN_OF_SENTENCE, END_OF_SENTENCE}
_TOOL = "<｜tool▁"  # in each string that only tool calls and their results are written with

_TOKEN_CONTROLS = frozenset({USER, ASSISTANT})

TEXT_TEMPLATES: Mapping[str, TextTemplate] = {
    "deepseek-llm": TextTemplate(
        after_system="\n\n",
        before_question="User: ",
        after_question="\n\n",
        before_answer="Assistant: ",
        opening="Assistant:",
        writes=frozenset({"User: ", "Assistant: ", "\n\n", "Assistant:"}),
    ),
    "deepseek-coder": TextTemplate(
        system=_CODER_SYSTEM,
        before_question="### Instruction:\n",
        after_question="\n",
        before_answer="### Response:\n",
        after_answer="\n",
        after_end="\n",
        opening="### Response:\n",
        end_token=EOT,
        writes=frozenset({_CODER_SYSTEM, "### Instruction:\n", "\n", "### Response:\n", f"\n{EOT}\n", "### Response:"}),
    ),
    "deepseek-v3": TextTemplate(
        before_question=USER,
        before_answer=ASSISTANT,
        opening=ASSISTANT,
        controls=_TOKEN_CONTROLS,
        writes=frozenset({USER, ASSISTANT}),
        may_write=_TOKEN_MAY_WRITE,
    ),
    "deepseek-r1": TextTemplate(
        before_question=USER,
        before_answer=ASSISTANT,
        opening=f"{ASSISTANT}{THINK}\n",
        controls=_TOKEN_CONTROLS | {THINK},
        thinking="forced",
        writes=frozenset({USER, ASSISTANT, END_THINK, f"{ASSISTANT}{THINK}\n"}),
        may_write=_TOKEN_MAY_WRITE,
    ),
    "deepseek-r1-free": TextTemplate(
        before_question=USER,
        before_answer=ASSISTANT,
        opening=ASSISTANT,
        controls=_TOKEN_CONTROLS,
        thinking="free",
        writes=frozenset({USER, ASSISTANT, END_THINK}),
        may_write=_TOKEN_MAY_WRITE,
    ),
}

_TAG = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)
_STRING = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def template_of(jinja: str) -> str | None:
    """The name of the format in which a Jinja program writes conversations, by its strings; None: of no known one."""
    if _TAG.sub("", jinja).strip():
        return None  # it also writes what stands between its tags
    written = {_unescaped(single or double) for tag in _TAG.findall(jinja) for single, double in _STRING.findall(tag)}
    written = {text for text in written if _TOOL not in text}
    for name, template in TEXT_TEMPLATES.items():
        if template.writes <= written <= template.writes | template.may_write | _with_end(template):
            return name
    return None


def published_template(config: Mapping[str, Any], file: str | None) -> str | None:
    """The Jinja program of a checkpoint.

    Args:
        config: of tokenizer_config.json, which holds it as text, or several by name.
        file: text of chat_template.jinja, which comes first.
    """
    if file is not None:
        return file
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _with_end(template: TextTemplate) -> frozenset[str]:
    """Its strings with the end token written into them."""
    return frozenset({template.after_answer + END_OF_SENTENCE})


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text, flags=re.DOTALL)
