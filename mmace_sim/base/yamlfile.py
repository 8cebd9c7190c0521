"""The one reader of YAML: plain data only, and nothing in it that a person would not write into a configuration."""

import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from mmace_sim.errors import ConfigError

MAX_BYTES = 2**20
"""Size of the largest file."""

MAX_DEPTH = 30
"""Mappings and lists within each other."""

MAX_NODES = 100_000
"""Values, those that aliases repeat counted again."""


class _Loader(yaml.SafeLoader):
    """Refuses keys that stand twice, keys that are no words or whole numbers, and structures without end."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        """Make one node, not too deep."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(
                None, None, f"more than {MAX_DEPTH} levels", self.peek_event().start_mark
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Any:
        """Make all nodes, not too many."""
        node = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Make a dictionary, each key once."""
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int) or isinstance(key, bool):
                problem = f"the key {key_node.value!r} is no word; write it in quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                problem = f"the key {key!r} stands there twice; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_TAG = "tag:yaml.org,2002:"
_PLAIN = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|nan))",
        "-+.0123456789",
    ),
}
"""What is a number or true, as in YAML 1.2: ``yes``, ``010`` and ``1:30`` are texts, not true, 8 and 90."""

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag.removeprefix(_TAG) not in _PLAIN]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), list(_first))


def _count(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Number of values of a node, aliases written out."""
    if id(node) in sizes:
        size = sizes[id(node)]
    else:
        sizes[id(node)] = MAX_NODES + 1  # a node that holds itself has no end
        parts = getattr(node, "value", ())
        children = (
            [part for pair in parts for part in pair]
            if isinstance(node, yaml.MappingNode)
            else parts
            if isinstance(node, yaml.SequenceNode)
            else []
        )
        size = sizes[id(node)] = 1 + sum(_count(child, sizes) for child in children)
    if size > MAX_NODES:
        raise yaml.composer.ComposerError(None, None, f"more than {MAX_NODES} values", node.start_mark)
    return size


def read_yaml(file: Path, *, hint: str = "Check the path.") -> dict[str, Any]:
    """Read a mapping from YAML.

    Args:
        file: The file.
        hint: What to do if it cannot be read.

    Returns:
        Its content; an empty file is an empty mapping.

    Raises:
        ConfigError: If it does not exist, is no YAML, or anything but a mapping of words to plain values.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: cannot be read ({reason}). {hint}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{file}: larger than 1 MB, which no configuration is. {hint}")
    return parse_yaml(content, str(file))


def parse_yaml(content: bytes, source: str) -> dict[str, Any]:
    """Read a mapping from YAML text.

    Args:
        content: The text as UTF-8.
        source: Where it comes from, for messages.

    Returns:
        The mapping; nothing is an empty one.

    Raises:
        ConfigError: If it is no YAML, or anything but a mapping of words to plain values.
    """
    try:
        values = yaml.load(content.decode("utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(f"{source}: is no valid YAML ({reason}).") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{source}: expected a mapping, lines such as 'fmax: 0.01', got a {type(values).__name__}."
        )
    other = [key for key in values if not isinstance(key, str)]
    if other:
        raise ConfigError(f"{source}: the key {other[0]!r} is no option; names of options are words.")
    return values


def refuse_huge_numbers(values: object, source: str, key: str = "") -> None:
    """Refuse whole numbers that no machine has a type for.

    Args:
        values: Content of a configuration.
        source: Where it comes from, for messages.
        key: Where in it.

    Raises:
        ConfigError: If there is one of 2^63 or more.
    """
    if isinstance(values, int) and abs(values) >= 2**63:
        raise ConfigError(f"{source}: {key}: a whole number of {len(str(abs(values)))} digits is too large.")
    if isinstance(values, dict | list):
        for name, value in values.items() if isinstance(values, dict) else enumerate(values):
            refuse_huge_numbers(value, source, f"{key}.{name}".lstrip("."))


def refuse_truth(value: object, annotation: object) -> Any:
    """A value for a field, unless it is true or false, or holds them, where a number is meant.

    Args:
        value: The value.
        annotation: Type of the field.

    Raises:
        ValueError: If it is true or false and the field takes neither.
    """
    if isinstance(value, dict) and _has_sections(annotation):
        return value  # each field of a section looks at its own
    if _holds_truth(value) and not _mentions(annotation, (bool, Any)):
        shown = (
            f"got {str(value).lower()}, which"
            if isinstance(value, bool)
            else "got true or false in it, which"
        )
        raise ValueError(f"{shown} is no value for it")
    return value


def _holds_truth(value: object) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, bool) or any(map(_holds_truth, parts))


def _has_sections(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(map(_has_sections, get_args(annotation)))


def _mentions(annotation: object, kinds: tuple[Any, ...]) -> bool:
    return annotation in kinds or any(_mentions(part, kinds) for part in get_args(annotation))
