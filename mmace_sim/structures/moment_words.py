"""The ways to start moments, by the words that configurations and the command line know."""

from mmace_sim.errors import ConfigError

STARTS: dict[str, str] = {
    "file": "must be in the file",
    "fm": "ferromagnetic along z, with the usual moment of each element",
    "high-spin": "the same with the spin moments of ions, by their oxidation states and Hund's rule",
    "low-spin": "with those of a strong crystal field",
    "afm": "antiparallel, as near neighbours and bridges of anions want it",
    "random:SEED": "random directions",
}
"""Each way and what it does."""

WORDS: tuple[str, ...] = tuple(word for word in STARTS if ":" not in word)
"""Ways that are one word."""

PATTERN: str = rf"^({'|'.join(WORDS)}|random:\d+)$"
"""What a configuration may say, as a regular expression."""

CHOICES: str = f"{', '.join(WORDS)} or random:SEED (e.g. random:7)"
"""The ways in a message."""

HELP: str = "Moments to start from. " + " ".join(f"**{word}**: {told}." for word, told in STARTS.items())
"""The ways in the help of the command line."""

DEFAULT: str = "from the file, else fm with a note"
"""What happens if nothing is said."""


def parse_initial(how: str | None) -> tuple[str | None, int]:
    """Split the choice of starting moments into its kind and its seed.

    Args:
        how: One of `STARTS`, with a number in place of ``SEED``, or None.

    Returns:
        Kind and seed (0 where there is none).

    Raises:
        ConfigError: If `how` is none of the choices.
    """
    if how is None or how in WORDS:
        return how, 0
    kind, _, seed = how.partition(":")
    if kind == "random" and seed.isdecimal():
        return kind, int(seed)
    raise ConfigError(f"unknown start of the moments {how!r}; choose {CHOICES}.")
