"""How long a prompt may be; it is refused before its tokens are made where that is certain."""

from dataclasses import dataclass

from server.errors import PromptTooLong

#: A limit that nothing reaches.
_NO_LIMIT = 1 << 40


@dataclass(frozen=True)
class Lengths:
    """The bounds of prompts.

    Messages have the words of OpenAI's API ("maximum context length is N tokens"): libraries that
    shorten a conversation, or ask another model, look for them.

    Args:
        max_length: the most tokens that a prompt and its answer have together.
        token_chars: for how many characters of a text one token stands at most.
    """

    max_length: int = _NO_LIMIT
    token_chars: int = 1

    @property
    def max_chars(self) -> int:
        """Return the most characters that `max_length` tokens have."""
        return self.max_length * self.token_chars

    def check_chars(self, num_chars: int, field: str) -> None:
        """Check the number of a text's characters.

        Args:
            num_chars: of one prompt.
            field: of the request that has it.

        Raises:
            PromptTooLong: they are more tokens than fit.
        """
        if num_chars > self.max_chars:
            found = f"the {field} has {num_chars} characters, and so many tokens have at most"
            raise self.too_long(f"{found} {self.max_chars}", field)

    def check(self, num_tokens: int, field: str) -> None:
        """Check the number of a prompt's tokens.

        Raises:
            PromptTooLong: they do not fit.
        """
        if num_tokens > self.max_length:
            raise self.too_long(f"the {field} resulted in {num_tokens} tokens", field)

    def room(self, num_tokens: int, wanted: int | None, usual: int | None, field: str) -> int:
        """Return how many tokens may be generated behind a prompt.

        Args:
            num_tokens: of the prompt.
            wanted: as the request says; None if it does not.
            usual: the most that are generated then, as far as they fit; None for all that fit.
            field: of the request that has the prompt.

        Raises:
            PromptTooLong: what is wanted, or else a single token, does not fit.
        """
        left = self.max_length - num_tokens
        if wanted is None:
            if left < 1:
                found = f"the {field} resulted in {num_tokens} tokens"
                raise self.too_long(f"{found}, and an answer has one at least", field)
            return left if usual is None else min(usual, left)
        if wanted > left:
            parts = f"{num_tokens} in the {field}, {wanted} in the completion"
            found = f"you requested {num_tokens + wanted} tokens ({parts})"
            raise self.too_long(found, f"{field} or the completion", field)
        return wanted

    def too_long(self, found: str, shorten: str, field: str | None = None) -> PromptTooLong:
        """Return the error of a prompt that is too long.

        Args:
            found: what is too long, in words.
            shorten: what is to be shorter.
            field: of the request that is at fault, if that is another name.
        """
        return PromptTooLong(
            f"This model's maximum context length is {self.max_length} tokens. However, {found}. "
            f"Please reduce the length of the {shorten}.",
            field or shorten,
        )
