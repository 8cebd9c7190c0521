"""The type checker of the tests: beartype, with an int accepted where a float is annotated (PEP 484)."""

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checker(function):
    """Check a function, unless it names a protocol that cannot be checked at run time, or `Self` outside of its class."""
    try:
        return _checked(function)
    except (BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception):
        return function
