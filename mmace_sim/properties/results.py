"""What the results of properties have in common."""


def known[T](value: T | None) -> T:
    """A value of a result that is there, because the result did not fail.

    Args:
        value: One that is None in results that failed.

    Raises:
        ValueError: If it is None.
    """
    if value is None:
        raise ValueError(
            "the result has no such value: it failed, or it was not asked for; look at its status."
        )
    return value
