"""The date that a chat template writes into prompts, held fast.

Some templates (Llama 3.2, SmolLM3, Granite) write today's date. Tokens, and all that is computed from them, must not
depend on the day of the training, so a fixed date takes its place; it is a setting (`template_date`).
"""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

_DIRECTIVES = ("%-d", "%-m", "%-H", "%-I", "%-M", "%-j", *(f"%{letter}" for letter in "aAbBcdefHIjmMpSUwWxXyYzZGuVF"))


def writes_date(tokenizer: Any) -> bool:
    """Whether the chat template asks what day it is."""
    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, dict) else [template or ""]
    return any("strftime_now" in text for text in texts)


def dated(tokenizer: Any, day: date) -> str | None:
    """The chat template with `day` in the place of today; None where it asks for no date, and stays as it is.

    transformers replaces functions among a template's arguments, so the date comes in as a macro, which hides the
    global function of its name.
    """
    if not writes_date(tokenizer):
        return None
    moment = datetime.combine(day, time())
    filters = "".join(f" | replace({directive!r}, {moment.strftime(directive)!r})" for directive in _DIRECTIVES)
    # The empty expression keeps a newline that begins the template: one after a block is cut off.
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}{{{{ '' }}}}"
    return macro + str(tokenizer.get_chat_template())
