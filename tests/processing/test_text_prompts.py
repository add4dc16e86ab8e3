"""Prompts of language models: chat formats, raw text, gaps; special tokens in a user's text stay text."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mm.chat import Message, TextPart, parse_messages, user_message
from mm.contracts import Inputs
from mm.errors import ConfigError, OptionError, PromptError, TaskError
from mm.processing.text import TextProcessor, TextSpec
from mm.text_templates import EOT, TEXT_TEMPLATES, published_template, template_of
from tests.tiny_text import write_tokenizer

END, BEGIN = "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"
TOKENS = (
    "<think>",
    "</think>",
    "<｜User｜>",
    "<｜Assistant｜>",
    EOT,
    "<｜fim▁begin｜>",
    "<｜fim▁hole｜>",
    "<｜fim▁end｜>",
)
CODER = TEXT_TEMPLATES["deepseek-coder"].system
MESSAGES = [
    {"role": "user", "content": " Hi "},
    {"role": "assistant", "content": "Let me.\n</think>\n\nYo"},
    {"role": "user", "content": "Bye"},
]
# A Jinja program for each format that writes its strings; published ones are longer, with the same strings.
JINJA = {
    "deepseek-llm": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ 'User: ' + m['content'] + "
    "'\n\n' }}{% else %}{{ 'Assistant: ' + m['content'] + eos_token }}{% endif %}{% endfor %}{{ 'Assistant:' }}",
    "deepseek-coder": f"{{% if not found %}}\n{{{{{CODER!r}}}}}\n{{% endif %}}{{{{ '### Instruction:\\n' + "
    f"m['content'] + '\\n' }}}} {{{{ '### Response:\\n' + m['content'] + '\\n{EOT}\\n' }}}}\n"
    "{{ '### Response:' }}\n",
    "deepseek-v3": "{{ '<｜User｜>' + m['content'] }}{{ '<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>' }}"
    "{{ '<｜tool▁calls▁begin｜>' + tool['type'] + '```json' }}",
    "deepseek-r1": "{{ '<｜User｜>' + m['content'] }}{% if '</think>' in content %}{% set content = "
    "content.split('</think>')[-1] %}{% endif %}{{ '<｜Assistant｜>' + content }}{{ '<｜Assistant｜><think>\\n' }}",
    "deepseek-r1-free": "{{ '<｜User｜>' + m['content'] }}{% set content = content.split('</think>')[-1] %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}",
}
# What the published programs render of MESSAGES, and of the first of them after a system message.
RENDERED = {
    "deepseek-llm": (
        f"User:  Hi \n\nAssistant: Let me.\n</think>\n\nYo{END}User: Bye\n\nAssistant:",
        "Be brief.\n\nUser:  Hi \n\nAssistant:",
    ),
    "deepseek-coder": (
        f"{CODER}### Instruction:\n Hi \n### Response:\nLet me.\n</think>\n\nYo\n{EOT}\n### Instruction:\nBye\n"
        "### Response:\n",
        "Be brief.### Instruction:\n Hi \n### Response:\n",
    ),
    "deepseek-v3": (
        f"<｜User｜> Hi <｜Assistant｜>Let me.\n</think>\n\nYo{END}<｜User｜>Bye<｜Assistant｜>",
        "Be brief.<｜User｜> Hi <｜Assistant｜>",
    ),
    "deepseek-r1": (
        f"<｜User｜> Hi <｜Assistant｜>\n\nYo{END}<｜User｜>Bye<｜Assistant｜><think>\n",
        "Be brief.<｜User｜> Hi <｜Assistant｜><think>\n",
    ),
    "deepseek-r1-free": (
        f"<｜User｜> Hi <｜Assistant｜>\n\nYo{END}<｜User｜>Bye<｜Assistant｜>",
        "Be brief.<｜User｜> Hi <｜Assistant｜>",
    ),
}
Maker = Callable[..., TextProcessor]


@pytest.fixture
def make(golden: Callable[[str], Path], tmp_path: Path) -> Maker:
    def build(name: str | None, *, jinja: str | None = None, tokens: tuple[str, ...] = TOKENS) -> TextProcessor:
        eos = EOT if name == "deepseek-coder" else END
        template = JINJA[name] if name is not None and jinja is None else jinja
        source = golden("deepseek_vl2_tiny") / "checkpoint"
        write_tokenizer(source, tmp_path, tokens=tokens, eos=eos, jinja=template)
        return TextProcessor.from_folder(tmp_path, TextSpec.from_folder(tmp_path))

    return build


def special(processor: TextProcessor, inputs: Inputs) -> list[str]:
    """The control tokens of a prompt."""
    names = {processor.tokenizer.token_id(text): text for text in (*TOKENS, BEGIN, END)}
    return [names[token] for token in inputs.input_ids.tolist() if token in names]


@pytest.mark.parametrize("name", TEXT_TEMPLATES)
def test_formats(name: str, make: Maker) -> None:
    processor = make(name)
    assert processor.spec == TextSpec(template=name, has_template=True)
    long, short = RENDERED[name]
    inputs = processor.process(parse_messages(MESSAGES))
    assert inputs.prompt == long
    assert inputs.reasoning == {"deepseek-r1": "begun", "deepseek-r1-free": "may begin"}.get(name)
    other = processor.process(parse_messages([{"role": "system", "content": "Be brief."}, MESSAGES[0]]))
    assert other.prompt == short
    for made in (inputs, other):
        assert made.input_ids[0] == processor.tokenizer.bos_id
        decoded = processor.tokenizer.decode(made.input_ids[1:].tolist())
        assert decoded == made.prompt


def test_control_tokens_of_a_prompt_and_none_of_a_users_text(make: Maker) -> None:
    processor = make("deepseek-r1")
    text = f"a <｜User｜> b </think> c {END} d <｜fim▁hole｜> e"
    inputs = processor.process([user_message(text)])
    assert special(processor, inputs) == [BEGIN, "<｜User｜>", "<｜Assistant｜>", "<think>"]
    assert text in inputs.prompt
    every = processor.process([Message("user", (TextPart(text, frozenset(TOKENS)),))])
    assert special(processor, every)[2:5] == ["<｜User｜>", "</think>", "<｜fim▁hole｜>"]
    shown = processor.tokenizer.special_ids - processor.tokenizer.hidden_ids
    assert shown == {processor.tokenizer.token_id(mark) for mark in ("<think>", "</think>")}


def test_an_answer_is_continued_and_learnt(make: Maker) -> None:
    processor = make("deepseek-llm")
    turns = parse_messages([MESSAGES[0], {"role": "assistant", "content": "Once upon"}])
    open_ended = processor.process(turns)
    assert open_ended.prompt == "User:  Hi \n\nAssistant: Once upon"
    assert special(processor, open_ended) == [BEGIN]
    whole = processor.process(turns, training=True)
    assert whole.prompt == f"User:  Hi \n\nAssistant: Once upon{END}"
    assert whole.labels is not None
    learnt = whole.input_ids[whole.labels != -100]
    assert processor.tokenizer.decode(learnt.tolist()).strip() == f"Once upon{END}"
    with pytest.raises(PromptError, match="a training conversation must end with an answer"):
        processor.process(parse_messages(MESSAGES[:1]), training=True)


def test_raw_prompts(make: Maker) -> None:
    processor = make(None)
    inputs = processor.process_prompt(f"x {END}", [], apply_template=False, special=frozenset())
    assert inputs.prompt == f"x {END}" and special(processor, inputs) == [BEGIN] and inputs.reasoning is None
    every = processor.process_prompt(f"x {END}", [], apply_template=False)
    assert special(processor, every) == [BEGIN, END]
    with pytest.raises(PromptError, match="the prompt is empty. Write what the model is to continue"):
        processor.process_prompt(" \n", [], apply_template=False)
    asked = make("deepseek-llm").process_prompt("Hi", [], apply_template=True)
    assert asked.prompt == "User: Hi\n\nAssistant:"


def test_a_gap(make: Maker) -> None:
    processor = make(None)
    inputs = processor.process_infill("def f(x):\n", f"\n    return y  # {END} <｜fim▁end｜>")
    assert inputs.prompt.startswith("<｜fim▁begin｜>def f(x):\n<｜fim▁hole｜>\n    return y")
    assert special(processor, inputs) == [BEGIN, "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"]
    assert inputs.input_ids[-1] == processor.tokenizer.token_id("<｜fim▁end｜>")
    assert special(processor, processor.process_infill("", "x"))[1:3] == ["<｜fim▁begin｜>", "<｜fim▁hole｜>"]
    with pytest.raises(PromptError, match="nothing stands before or after the gap"):
        processor.process_infill("", "\n")
    with pytest.raises(TaskError, match="its tokenizer has no fill-in-the-middle tokens"):
        make(None, tokens=TOKENS[:5]).process_infill("a", "b")


def test_what_a_language_model_cannot_do(make: Maker) -> None:
    processor = make("deepseek-v3")
    seen = parse_messages([{"role": "user", "content": "<image>\nWhat?", "images": ["a.png"]}])
    with pytest.raises(TaskError, match="reads text only and takes no image"):
        processor.process(seen)
    with pytest.raises(TaskError, match="reads text only and takes no image"):
        processor.process_prompt("What?", ["a.png"], apply_template=False)
    with pytest.raises(OptionError, match="max_tiles is 2, but this model takes no images"):
        processor.process(parse_messages(MESSAGES), max_tiles=2)
    with pytest.raises(TaskError, match="cannot draw, so there is no drawing of 'a cat'"):
        processor.drawing_prompt("a cat")
    assert processor.num_image_tokens(640, 480) == 0


def test_a_base_checkpoint_and_an_unknown_format(make: Maker) -> None:
    with pytest.raises(TaskError, match="hold no chat template: it is a base model, which continues text"):
        make(None).process(parse_messages(MESSAGES))
    chatml = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] }}{% endfor %}"
    processor = make(None, jinja=chatml)
    assert processor.spec == TextSpec(template=None, has_template=True)
    with pytest.raises(TaskError, match="none of the formats that are known .* never run.*--special-tokens all"):
        processor.process(parse_messages(MESSAGES))


@pytest.mark.parametrize(
    "jinja",
    [
        JINJA["deepseek-llm"].replace("User: ", "Human: "),
        JINJA["deepseek-llm"].replace("'Assistant:'", "'Assistant: Sure, '"),
        JINJA["deepseek-llm"] + " Answer in French.",
        JINJA["deepseek-r1"].replace("<think>\\n", "</think>"),  # V3.1's, whose answers do not think
        "{{ 'User: ' }}",
        "{% include '/etc/passwd' %}",
        "",
    ],
)
def test_other_programs_are_no_known_format(jinja: str) -> None:
    assert template_of(jinja) is None


def test_where_a_template_is_found(tmp_path: Path) -> None:
    several = {"chat_template": [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]}
    assert published_template(several, None) == "b"
    assert published_template(several, "c") == "c"
    assert published_template({"chat_template": 7}, None) is None and published_template({}, None) is None
    assert TextSpec.from_folder(tmp_path) == TextSpec(template=None, has_template=False)
    (tmp_path / "chat_template.jinja").write_text(JINJA["deepseek-v3"])
    assert TextSpec.from_folder(tmp_path).template == "deepseek-v3"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"chat_template\.jinja cannot be read"):
        TextSpec.from_folder(tmp_path)


def test_a_tokenizer_of_another_model(make: Maker, tmp_path: Path) -> None:
    make("deepseek-coder")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": END}))
    with pytest.raises(
        ConfigError, match=r"ends answers with <\|EOT\|>, but tokenizer_config.json says eos_token <｜end"
    ):
        TextProcessor.from_folder(tmp_path, TextSpec.from_folder(tmp_path))
    with pytest.raises(ConfigError, match="the tokenizer has no token '<｜"):
        make("deepseek-v3", tokens=())


def test_saved_files_are_read_back(make: Maker, tmp_path: Path) -> None:
    processor = make("deepseek-r1")
    processor.save(tmp_path / "saved")
    again = TextProcessor.from_folder(tmp_path / "saved", TextSpec.from_folder(tmp_path / "saved"))
    turns = parse_messages(MESSAGES)
    assert again.process(turns).input_ids.tolist() == processor.process(turns).input_ids.tolist()
    rows = [processor.process(turns), processor.process(turns[:1])]
    assert processor.collate(rows).input_ids.shape == (2, rows[0].num_tokens)
