"""What a pipeline gives back."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from mm.contracts import CancelToken, Reasoning
from mm.errors import OptionError
from mm.generation.reasoning import Kind, ReasoningSplitter
from mm.generation.stopping import FinishReason
from mm.grounding import Box


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts of one answer."""

    prompt_tokens: int  # image tokens included
    image_tokens: int
    completion_tokens: int  # the end token included

    @property
    def total_tokens(self) -> int:
        """Prompt and answer."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer. ``str(reply)`` is its text.

    Attributes:
        text: the answer without special tokens, and without what the model thought before it.
        finish_reason: "stop" (the model's end token), "stop_string", "length" (the token limit), "loop" (the answer
            repeated itself without end and was stopped) or "cancelled".
        usage: token counts.
        boxes: every box that the answer names, in order; see ``mm.grounding.Box``.
        raw_text: the answer with its special tokens (box markup), without the end token. It ends where ``text`` ends: a
            stop string is in neither. A special token that was a stop string stays, so that a list it closes is closed.
        token_ids: the tokens of the answer, end token included, or those of the stop string.
        logprobs: per token of ``token_ids`` its log-probability under the model, before penalties and temperature;
            None unless asked for.
        reasoning: what the model thought before it answered ("" where it answered at once); None for models that do not
            reason. ``raw_text`` and ``token_ids`` hold both.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    boxes: tuple[Box, ...]
    raw_text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    reasoning: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class OcrResult:
    """Text read from an image. ``str(result)`` is the text.

    Attributes:
        text: all of it.
        lines: the lines that are not empty, without white space at their ends.
        reply: the whole answer; ``finish_reason`` tells whether the text is complete.
    """

    text: str
    lines: tuple[str, ...]
    reply: Reply

    def __str__(self) -> str:
        return self.text


class CancelFlag:
    """A cancel token without a lock, which a signal handler may set whatever the thread was doing."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """End what it was given to."""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set


class AnyOf:
    """A cancel token that is set when one of these is."""

    def __init__(self, *tokens: CancelToken | None) -> None:
        self._tokens = [token for token in tokens if token is not None]

    def is_set(self) -> bool:
        """True once the run is to end."""
        return any(token.is_set() for token in self._tokens)


class TextStream(Iterator[str], AsyncIterator[str]):
    """The pieces of an answer while it is made. Joined, they are ``reply.text``; none is empty or ends inside a
    character. ``parts`` gives the reasoning of a model that reasons as well.

    Read it with ``for`` in one thread, or with ``async for`` in one event loop, not both; ``cancel`` may be called from
    any thread and from a signal handler. ``async for`` raises ``BusyError`` where ``for`` would wait for a place in the
    engine's queue.
    """

    def __init__(
        self,
        pieces: Iterator[str],
        async_pieces: AsyncIterator[str],
        reply: Callable[[], Reply],
        cancelled: CancelFlag,
        reasoning: Reasoning | None = None,
    ) -> None:
        self._splitter = None if reasoning is None else ReasoningSplitter(reasoning)
        self._parts: deque[tuple[Kind, str]] = deque()
        self._pieces = pieces
        self._async_pieces = async_pieces
        self._reply = reply
        self._cancelled = cancelled
        self._way: str | None = None  # how it is read
        self._failure: Exception | None = None

    def __next__(self) -> str:
        while True:
            kind, text = self._next_part()
            if kind == "answer":
                return text

    def parts(self) -> Iterator[tuple[Kind, str]]:
        """The pieces with what they are part of: ``("reasoning", text)`` or ``("answer", text)``."""
        while True:
            try:
                part = self._next_part()
            except StopIteration:
                return
            yield part

    async def __anext__(self) -> str:
        self._read_with("async for")
        while True:
            while self._parts:
                kind, text = self._parts.popleft()
                if kind == "answer":
                    return text
            try:
                self._take(await anext(self._async_pieces))
            except StopAsyncIteration:
                if not self._take_rest():
                    raise
            except Exception as error:
                self._failure = error
                raise

    def _next_part(self) -> tuple[Kind, str]:
        self._read_with("for")
        while not self._parts:
            try:
                self._take(next(self._pieces))
            except StopIteration:
                if not self._take_rest():
                    raise
            except Exception as error:
                self._failure = error
                raise
        return self._parts.popleft()

    def _take(self, piece: str) -> None:
        """A piece of text, as the parts that it completes."""
        self._parts.extend([("answer", piece)] if self._splitter is None else self._splitter.push(piece))

    def _take_rest(self) -> bool:
        """What the splitter held back at the end; whether that was anything."""
        rest = [] if self._splitter is None else self._splitter.flush()
        self._parts.extend(rest)
        return bool(rest)

    def cancel(self) -> None:
        """End the answer within one step. What is finished by then can still be read."""
        self._cancelled.set()

    @property
    def reply(self) -> Reply:
        """The whole answer; waits for what has not been read yet (in an event loop, read the stream to its end first).
        An answer that the caller ended (``cancel``, Ctrl-C) is there as far as it came.

        Raises:
            BaseException: what the request failed with, each time.
        """
        if self._way != "async for" and self._failure is None:
            for _ in self:
                pass
        if self._failure is not None:
            raise self._failure
        return self._reply()

    def _read_with(self, way: str) -> None:
        if self._way not in (None, way):
            raise OptionError(
                f"this stream is read with '{self._way}' already; it cannot be read with '{way}' as well. Ask again "
                "for a second stream."
            )
        self._way = way
