"""From prompts and completions to tokens, through the tokenizer's chat template.

Every stage encodes through these functions, so that what is trained, sampled and scored is the
same sequence of tokens. Text from data is encoded as text: a literal ``<|im_end|>`` in a reply
becomes ordinary tokens and never ends a turn.
"""

import re
from functools import lru_cache

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from stages.core.errors import UserError

Message = dict[str, str]
Prompt = str | list[Message]

PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For models that bring none: plain text, so that no embedding has to be added."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of a prompt up to where the assistant's reply begins.

    Args:
        prompt: a user's text, or messages with role and content that end with a user's.

    Raises:
        UserError: the chat template refuses the roles.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    pieces = _template_pieces(tokenizer, tuple(message["role"] for message in messages))
    ids: list[int] = []
    for piece in pieces:
        if isinstance(piece, int):
            ids += encode_text(tokenizer, messages[piece]["content"])
        else:
            ids += piece
    return ids


def encode_completion(tokenizer: PreTrainedTokenizerBase, completion: str) -> list[int]:
    """Token ids of a reply and the EOS token that ends it."""
    return [*encode_text(tokenizer, completion), tokenizer.eos_token_id]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of plain text; special tokens written out in it are split into ordinary ones."""
    ids: list[int] = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, verbose=False
    )["input_ids"]
    return ids


def encode_document(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a document: BOS where the tokenizer has one, the text, EOS."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [*start, *encode_text(tokenizer, text), tokenizer.eos_token_id]


def decode_completion(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Text of a sampled reply, special tokens left out."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one readable text, for tables and logs."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


@lru_cache(maxsize=256)
def _template_pieces(
    tokenizer: PreTrainedTokenizerBase, roles: tuple[str, ...]
) -> list[list[int] | int]:
    """The chat template around messages of these roles: token ids of its own text and, where the
    content of message i belongs, the number i.

    The template is rendered with private-use characters in place of the contents, which templates
    pass through unchanged.
    """
    placeholders = [
        {"role": role, "content": f"\ue000{index}\ue001"} for index, role in enumerate(roles)
    ]
    try:
        rendered = tokenizer.apply_chat_template(
            placeholders,
            chat_template=tokenizer.chat_template or PLAIN_CHAT_TEMPLATE,
            tokenize=False,
            add_generation_prompt=True,
        )
    except (TemplateError, ValueError) as error:
        raise UserError(
            f"the chat template refuses the roles {', '.join(roles)}: {error}"
        ) from error
    # The odd pieces of the split are the numbers.
    return [
        int(piece) if index % 2 else tokenizer(piece, add_special_tokens=False)["input_ids"]
        for index, piece in enumerate(re.split("\ue000(\\d+)\ue001", rendered))
    ]
