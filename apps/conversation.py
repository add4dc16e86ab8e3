"""A conversation of the chat page: what the page shows, as messages of the model, and how it is saved and edited."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from mm.chat import Message, TextPart, task_message, user_message
from mm.errors import InputError
from mm.images import ImageSource

from .common import open_upload, path_of, sentences
from .doors import is_upload

ASK, FIND = "Ask", "Find in the image"
TITLE = 40  # letters of a saved conversation's name
MOST_SAVED = 30  # conversations; a browser keeps some megabytes for a page
MOST_PIXELS = 200_000_000  # of all pictures of a conversation
LOST = "(a picture that is deleted by now)"
BUSY = {"submit_btn": False, "stop_btn": True, "interactive": False}  # where a visitor writes, while an answer comes
READY = {"submit_btn": True, "stop_btn": False, "interactive": True}
Turn = dict[str, Any]


class Chat(gr.ChatInterface):
    """Gradio's chat, but for what it does not do: names without a paper clip, for which many machines have no glyph;
    edited questions keep their pictures; a stopped answer ends by itself, so that its counts are shown; what a browser
    hands back as a saved conversation is checked.

    Args:
        answer: an async generator of messages and data.
        end: ends what a session has running.
        chatbot: where the conversation is shown.
        textbox: where a visitor writes.
        inputs: further ones of ``answer``.
        data: shows the answer as data.
    """

    def __init__(
        self,
        answer: Callable[..., Any],
        end: Callable[[gr.Request], None],
        *,
        chatbot: gr.Chatbot,
        textbox: gr.MultimodalTextbox,
        inputs: Sequence[gr.components.Component],
        data: gr.JSON,
    ) -> None:
        self._end_session = end
        self._placeholder = textbox.placeholder
        chatbot.editable = "user"
        super().__init__(
            answer,
            chatbot=chatbot,
            textbox=textbox,
            additional_inputs=list(inputs),
            additional_outputs=[data],
            multimodal=True,
            editable=False,  # its way loses the pictures of a question; ours follows
            show_progress="hidden",  # else a mistake hides the conversation
            save_history=True,
            stop_btn=True,
            fill_height=False,
            api_name="chat",
            concurrency_limit=None,
            analytics_enabled=False,
        )
        # Gradio's own are new at each start of the server, after which nothing that was saved could be opened.
        self.saved_conversations.secret = self.saved_conversations.storage_key = "mm-conversations"

    def _generate_chat_title(self, conversation: list[Any]) -> str:
        turns = [turn for turn in conversation if isinstance(turn, Mapping) and turn.get("role") == "user"]
        texts = (" ".join(content_of(turn.get("content"))[0].split()) for turn in turns)
        title = next(filter(None, texts), "Pictures")
        return title if len(title) <= TITLE else title[: TITLE - 3] + "..."

    def _save_conversation(
        self, index: int | None, conversation: list[Any], saved_conversations: list[list[Any]]
    ) -> tuple[int | None, list[list[Any]]]:
        known = saved_conversations if isinstance(saved_conversations, list) else []
        if index is not None and not 0 <= index < len(known):  # another tab of this browser deleted some
            index = None
        if index is None and not conversation:
            return None, known
        index, known = super()._save_conversation(index, for_browser(conversation), known)
        return index, known[:MOST_SAVED]

    def _delete_conversation(
        self, index: int | None, saved_conversations: list[list[Any]]
    ) -> tuple[int | None, list[list[Any]]]:
        known = saved_conversations if isinstance(saved_conversations, list) else []
        if index is not None and 0 <= index < len(known):
            known.pop(index)
        return None, known

    def _load_conversation(self, index: int, conversations: list[list[Any]]) -> tuple[int, Any]:
        with sentences():
            if not isinstance(conversations, list) or not 0 <= index < len(conversations):
                raise InputError("that conversation is not here any more. Open the page again")
            return index, gr.update(value=reopened(conversations[index]))

    def _setup_events(self) -> None:
        super()._setup_events()
        quiet: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
        edited = self.chatbot.edit(
            self._take_back,
            self.chatbot_state,
            [self.chatbot, self.chatbot_state, self.saved_input, self.textbox],
            **quiet,
        )
        edited.failure(self._ready, None, self.textbox, **quiet)
        answered = edited.success(
            self._api_wrapper(self.fn, self._stream_fn),
            [self.saved_input, self.chatbot_state, *self.additional_inputs],
            [self.null_component, self.chatbot, *self.additional_outputs],
            api_visibility="private",
            concurrency_limit=self.concurrency_limit,
            show_progress=self.show_progress,
        )
        self._give_back_after(answered)
        ended = answered.then(
            lambda turns: (turns, self._ready()), self.chatbot, [self.chatbot_state, self.textbox], **quiet
        )
        ended.then(
            self._save_conversation,
            [self.conversation_id, self.chatbot_state, self.saved_conversations],
            [self.conversation_id, self.saved_conversations],
            **quiet,
        )

    def _take_back(self, history: list[Any], edit_data: gr.EditData) -> tuple[Any, ...]:
        """The conversation before an edited question, and the question with its pictures. What the browser holds has
        lost them by now."""
        with sentences():
            index = edit_data.index[0] if isinstance(edit_data.index, list | tuple) else edit_data.index
            if not isinstance(index, int) or not 0 <= index < len(history) or not isinstance(edit_data.value, str):
                raise InputError("that question is not here any more. Ask it again")
            kept = list(history[:index])
            _, files = content_of(history[index].get("content"))
            question: Any = {"text": edit_data.value, "files": files}
            return self._append_message_to_history(question, kept, "user"), kept, question, self._busy()

    def _setup_stop_events(self, event_triggers: list[Any], events_to_cancel: list[Any], after_success: Any) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
        for trigger in event_triggers:
            trigger(self._busy, None, self.textbox, **quiet)
        for event in events_to_cancel:
            event.then(self._ready, None, self.textbox, **quiet)
            self._give_back_after(event)

        def stop(request: gr.Request) -> Any:
            self._end_session(request)
            return self._ready()

        self.textbox.stop(stop, None, self.textbox, **quiet)

    def _give_back_after(self, event: Any) -> None:
        """After a mistake the question is where it was written, to be mended."""
        event.failure(
            lambda question, turns: (gr.update(value=question, placeholder=self._placeholder, **READY), turns),
            [self.saved_input, self.chatbot_state],
            [self.textbox, self.chatbot],
            api_visibility="private",
            queue=False,
            show_progress="hidden",
        )

    def _clear_and_save_textbox(self, message: Any) -> tuple[Any, Any]:
        return gr.update(value=None, placeholder="", **BUSY), message

    def _busy(self) -> Any:
        return gr.update(**BUSY)

    def _ready(self) -> Any:
        return gr.update(**READY, placeholder=self._placeholder)


def for_browser(turns: Sequence[Turn]) -> list[Turn]:
    """A conversation to be saved. Of files it holds the paths alone: where Gradio sees a file that was uploaded to an
    earlier server, it opens nothing of all that is saved."""
    kept = []
    for turn in turns:
        text, files = content_of(turn.get("content"))
        content = [*({"type": "file", "file": {"path": path}} for path in files), *([text] if text else [])]
        kept.append({"role": turn["role"], "content": content, "metadata": turn.get("metadata")})
    return kept


def reopened(saved: object) -> list[Turn]:
    """A saved conversation for the page. It comes from the browser: only texts and files that lie here are taken.

    Raises:
        InputError: it is none.
    """
    turns: list[Turn] = []
    for turn in saved if isinstance(saved, list) else [None]:
        if not isinstance(turn, Mapping) or turn.get("role") not in ("user", "assistant"):
            raise InputError("that is no conversation of this page. Start a new chat")
        texts, files = content_of(turn.get("content"))
        content: list[Any] = [{"path": path} if is_upload(path) and Path(path).is_file() else LOST for path in files]
        title = metadata.get("title") if isinstance(metadata := turn.get("metadata"), Mapping) else None
        note = {"metadata": {"title": str(title), "status": "done"}} if title else {}
        turns.append({"role": turn["role"], "content": [*content, *([texts] if texts else [])], **note})
    return turns


def conversation(history: Sequence[Turn], message: Mapping[str, Any], task: str = ASK) -> list[Message]:
    """What the page shows, as messages of the model. Notes under answers and questions without an answer are left out.

    Raises:
        InputError: nothing is asked, or the pictures are too large together.
        ImageError: a file is no picture that was uploaded here.
    """
    turns: list[Message] = []
    pixels = 0

    def picture(path: str) -> Image.Image:
        nonlocal pixels
        image = open_upload(path)
        pixels += image.width * image.height
        if pixels > MOST_PIXELS:
            raise InputError(
                f"the pictures of this conversation have more than {MOST_PIXELS:,} pixels together. Send smaller ones, "
                "or start a new chat"
            )
        return image

    for turn in history:
        if (turn.get("metadata") or {}).get("title"):
            continue
        texts, files = content_of(turn.get("content"))
        role = turn.get("role")
        if role == "user":
            if turns and turns[-1].role == "user":
                if _only_images(turns[-1]):  # a message of several parts
                    turns.append(_question(texts, [*turns.pop().images, *map(picture, files)]))
                    continue
                turns.pop()
            turns.append(_question(texts, [picture(path) for path in files]))
        elif role == "assistant" and texts and turns and turns[-1].role == "user":
            turns.append(Message("assistant", (TextPart(texts),)))
    if turns and turns[-1].role == "user":
        turns.pop()
    images = [picture(path_of(file)) for file in message.get("files") or []]
    text = str(message.get("text") or "").strip()
    if task not in (ASK, FIND):
        raise InputError(f"unknown task {task!r}; known: {ASK}, {FIND}.")
    if not text:
        raise InputError(
            "name what to find." if task == FIND else "nothing is asked. Write a question next to the image."
        )
    if task == FIND:
        if not images and not any(turn.images for turn in turns):
            raise InputError("there is no image to search. Add one to the conversation.")
        turns.append(task_message("ground", images, text))
    else:
        turns.append(user_message(text, images, special_tokens="none"))
    return turns


def _question(text: str, images: Sequence[ImageSource]) -> Message:
    return user_message(text or " .", list(images), special_tokens="none")


def _only_images(message: Message) -> bool:
    return bool(message.images) and all(
        not isinstance(part, TextPart) or part.text.strip() in ("", ".") for part in message.parts
    )


def content_of(content: object) -> tuple[str, list[str]]:
    """Texts, joined, and paths of files of what Gradio calls the content of a message."""
    texts: list[str] = []
    files: list[str] = []
    for item in content if isinstance(content, list | tuple) else [content]:
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, Mapping) and item.get("type") == "text":
            texts.append(str(item.get("text", "")))
        elif isinstance(item, Mapping) and item.get("type") != "component":
            files.append(path_of(item.get("file", item)))
    return "\n".join(texts).strip(), files
