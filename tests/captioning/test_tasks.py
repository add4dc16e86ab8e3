"""What is asked, what becomes of answers, JSON by a schema."""

import pytest

from mm.captioning import Task
from mm.captioning.schema import check_schema, parse_answer, violation
from mm.errors import OptionError

SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 0}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["count"],
    "additionalProperties": False,
}


def test_places_of_a_prompt_are_filled_once():
    task = Task(prompt="{name} in {directory}: {tags} {other}")
    assert task.question("a/{tags}.png", "red") == "{tags} in a: red {other}"
    assert Task().question("a.png", "") == "Describe the image."


def test_prefix_suffix_and_trigger_words():
    task = Task(prefix="<", suffix=">", trigger_words=("ohwx", "cat"))
    assert task.finish(" a cat \n") == "<ohwx, a cat>"
    with pytest.raises(ValueError, match="the answer is empty"):
        task.finish(" \n")


def test_json_answers_are_checked():
    task = Task(name="json", schema=SCHEMA)
    assert task.finish('Here:\n```json\n{"count": 2, "tags": ["x"]}\n```') == '{"count": 2, "tags": ["x"]}'
    for text, reason in (
        ("two", "the answer is no JSON"),
        ('{"count": NaN}', "the answer is no JSON: NaN"),
        ('{"count": -1}', r"\$.count is -1, less than 0"),
        ('{"count": true}', r"\$.count is true, not of the type integer"),
        ('{"tags": []}', r"\$ lacks 'count'"),
        ('{"count": 1, "x": 1}', r"\$.x is not allowed"),
        ('{"count": 1, "tags": [1]}', r"\$.tags\[0\] is 1, not of the type string"),
    ):
        with pytest.raises(ValueError, match=reason):
            task.finish(text)


@pytest.mark.parametrize(
    ("schema", "value", "good"),
    [
        ({"enum": [1, "a"]}, "a", True),
        ({"enum": [1]}, True, False),
        ({"const": None}, None, True),
        ({"type": ["string", "null"]}, None, True),
        ({"type": "integer"}, 2.0, True),
        ({"type": "string", "pattern": "^a", "maxLength": 2}, "ab", True),
        ({"type": "string", "maxLength": 2}, "abc", False),
        ({"type": "array", "minItems": 1}, [], False),
        (False, 1, False),
    ],
)
def test_words_of_a_schema(schema, value, good):
    check_schema(schema)
    assert (violation(value, schema) is None) == good


def test_what_is_refused():
    with pytest.raises(OptionError, match="the schema uses 'oneOf' at \\$.a, which is not checked. Known: "):
        check_schema({"properties": {"a": {"oneOf": []}}})
    with pytest.raises(OptionError, match="the schema has the type 'int'"):
        Task(schema={"type": "int"})
    with pytest.raises(OptionError, match="unknown task 'x'. Known: caption, short"):
        Task(name="x")
    with pytest.raises(OptionError, match="the prompt is empty"):
        Task(prompt=" ")
    assert parse_answer("[1]") == [1]


def test_answers_that_stay_wrong_go_to_quarantine(do, tmp_path):
    from tests.captioning.conftest import paint

    paint(tmp_path / "in", 2)
    summary = do(tmp_path / "in", tmp_path / "out.jsonl", task=Task(name="json", schema=SCHEMA, retries=1))
    assert (summary.done, summary.quarantined) == (0, {"json": 2})
    text = summary.quarantine.read_text()
    assert "json: the answer is" in text
