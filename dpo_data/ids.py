"""What makes two texts, prompts or comparisons the same: content hashes that never change.

Text is compared in NFC, with line ends unified and outer white space stripped. Inner white space
counts: in code it can be the whole difference. Hashes are BLAKE2b, 128 bits, written as hex, so
that an id is the same in every source, side order, refresh and library version.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from hashlib import blake2b

_UNIT = "\x1f"  # between role and content
_RECORD = "\x1e"  # between messages


def canonical(text: str) -> str:
    """The form in which a text is stored, hashed and compared."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text.strip()


def text_hash(text: str) -> str:
    """Hex of the 128-bit hash of a canonical text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def prompt_hash(prompt: Iterable[Mapping[str, str]]) -> str:
    """Hex of the hash of a whole message list (roles count; contents are canonical already)."""
    return text_hash(_RECORD.join(f"{message['role']}{_UNIT}{message['content']}" for message in prompt))


def comparison_hash(prompt_key: str, response_key_1: str, response_key_2: str) -> str:
    """The comparison's id, from the three hashes; the order of the responses does not matter."""
    low, high = sorted((response_key_1, response_key_2))
    return text_hash(f"{prompt_key}{low}{high}")


def coin(key: str, salt: str = "") -> float:
    """A number in [0, 1) that belongs to `key` for good: sampling that does not flicker between refreshes."""
    digest = blake2b(f"{salt}{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
