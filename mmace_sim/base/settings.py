"""Settings, declared once: from a field follow option, YAML key, keyword argument, help, documentation and checks.

    class Eos(Settings):
        n_volumes: Annotated[int, Flag(STRAIN)] = Field(default=13, ge=2)
        \"\"\"Number of volumes.\"\"\"

is the option ``--n-volumes`` with this help, the key ``n_volumes`` of ``config.yaml``, and a keyword of Python.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mmace_sim.base.yamlfile import read_yaml, refuse_huge_numbers, refuse_truth
from mmace_sim.errors import ConfigError

RUN = "Run"
RELAXATION = "Relaxation"
MOMENTS = "Magnetic moments"
STRAIN = "Strain"
MACHINE = "Machine"


@dataclass(frozen=True)
class Flag:
    """How a setting stands on the command line.

    Attributes:
        panel: Panel of the help.
        unit: Unit of the value, which the help tells.
        metavar: What stands for the value; None: by its type.
        names: All its names, such as ``--output`` and ``-o``; empty: the name of the field with dashes.
        shown: Default in words, where the value itself says too little.
        argument: Stands without a name.
        repeated: May be given several times, in place of a list with commas.
    """

    panel: str = RUN
    unit: str = ""
    metavar: str | None = None
    names: tuple[str, ...] = ()
    shown: str | None = None
    argument: bool = False
    repeated: bool = False


@dataclass(frozen=True)
class Setting:
    """A field of settings, with everything that is said of it.

    Attributes:
        name: Key in YAML and in Python.
        annotation: Its type.
        default: Its default.
        text: What it means, with its unit.
        flag: How it stands on the command line; None: only in YAML and Python.
    """

    name: str
    annotation: Any
    default: Any
    text: str
    flag: Flag | None

    @property
    def shown(self) -> str:
        """The default in words."""
        if self.flag is not None and self.flag.shown is not None:
            return self.flag.shown
        return spelled(self.default)

    @property
    def takes_list(self) -> bool:
        """Whether it is a list."""
        return _is_list(self.annotation)


class Settings(BaseModel):
    """Settings with a docstring below each field; unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, populate_by_name=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: object, info: ValidationInfo) -> Any:
        """Truth is no number; ``a,b`` is a list where a list is meant; arrays are lists of plain numbers."""
        field = cls.model_fields[str(info.field_name)]
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, str) and _is_list(field.annotation):
            flag = _flag(field)
            one = flag is not None and (flag.argument or flag.repeated)
            return [value] if one else [part.strip() for part in value.split(",")]
        return refuse_truth(value, field.annotation)

    @classmethod
    def declared(cls) -> list[Setting]:
        """Every field with what is said of it, in order; those of a section within by names with a dot."""
        found = []
        for name, field in cls.model_fields.items():
            section = _section(field.annotation)
            if section is None:
                found.append(_setting(name, field))
            else:
                found += [replace(s, name=f"{name}.{s.name}") for s in section.declared()]
        return found

    def check_given(self, given: frozenset[str]) -> None:
        """Refuse what would have no effect.

        Args:
            given: Names of settings that were given on the command line.

        Raises:
            ConfigError: If there is such a setting.
        """

    def refuse_idle(self, names: Iterable[str], when: str, given: frozenset[str]) -> None:
        """Refuse settings without effect, unless they are as they are by default.

        Args:
            names: Which have no effect.
            when: What makes them so, such as "without --map".
            given: Those that were given on the command line.

        Raises:
            ConfigError: If there is one.
        """
        for setting in self.declared():
            if setting.name in names and getattr(self, setting.name) != setting.default:
                dashed = f"--{setting.name.replace('_', '-')}"
                name = dashed if setting.name in given else setting.name
                raise ConfigError(f"{name}: has no effect {when}. Leave it out, or choose otherwise.")

    @classmethod
    def of(cls, values: dict[str, Any], what: str = "settings") -> Self:
        """Settings from keyword arguments.

        Args:
            values: By name.
            what: Whose they are, for messages.

        Raises:
            ConfigError: If a name is unknown or a value impossible.
        """
        _refuse_unknown(values, cls, what)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(explain(error, what, {})) from error


def load_settings[S: Settings](kind: type[S], file: Path | None, flags: dict[str, Any]) -> S:
    """Merge a YAML file and flags; flags win.

    Args:
        kind: Class of the settings.
        file: YAML file, or None.
        flags: Values given on the command line; those that are None were not given.

    Raises:
        ConfigError: If the file cannot be read, holds unknown keys or impossible values.
    """
    values = read_yaml(file, hint="Check the path of --config.") if file else {}
    source = str(file) if file else "command line"
    _refuse_unknown(values, kind, source)
    given = {key: value for key, value in flags.items() if value is not None}
    merged = merge(values, given)
    for name, alias in _aliases(kind).items():
        if name in merged and alias in merged:
            del merged[alias if name in given else name]
    refuse_huge_numbers(merged, source)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error, source, given)) from error


def merge(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Values with others on top, nested mappings key by key.

    Args:
        base: Values.
        extra: Those that win.
    """
    merged = dict(base)
    for key, value in extra.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def dump_settings(settings: BaseModel) -> str:
    """Write settings as YAML that `load_settings` reads.

    Returns:
        YAML text, one commented line for each field.
    """
    lines = []
    for key, value in settings.model_dump(mode="json").items():
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
        text = text.removesuffix("\n").removesuffix("\n...")
        told = _setting(key, type(settings).model_fields[key]).text.replace("**", "")
        lines.append(f"{key}: {text}  # {told}")
    return "\n".join(lines) + "\n"


def spelled(value: object) -> str:
    """A value as one would write it on the command line.

    Args:
        value: Default of a field.
    """
    if isinstance(value, list | tuple):
        return ",".join(spelled(part) for part in value)
    if isinstance(value, float):
        return f"{value:.10g}".replace("e-0", "e-")
    return "" if value is None else str(value)


def explain(error: ValidationError, source: str, flags: dict[str, Any]) -> str:
    """One line per wrong value, with the value and where it came from.

    Args:
        error: What pydantic says.
        source: Where values came from that are no flags.
        flags: Those given on the command line.
    """
    lines = []
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else ""
        where = f"--{key.replace('_', '-')}" if key in flags else f"{source}: {key}".rstrip(": ")
        got = f" (got {item['input']!r})" if key else ""
        lines.append(f"{where}: {_reason(item)}{got}.")
    return "\n".join(lines)


def _reason(item: ErrorDetails) -> str:
    """What is wrong with a value."""
    if item["type"] == "literal_error":
        return f"choose {item['ctx']['expected'].replace(chr(39), '')}"
    return item["msg"].removeprefix("Value error, ")


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Values whose names have dots as sections within sections.

    Args:
        values: Such as ``{"data.valid_fraction": 0.2}``.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        *sections, key = name.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return found


def setting_of(kind: type[BaseModel], name: str, flag: Flag, key: str | None = None) -> Setting:
    """A field of a class without flags, such as the hyper-parameters of a model, as a setting.

    Args:
        kind: The class.
        name: Of the field.
        flag: How it stands on the command line.
        key: Its key; None: the name of the field.
    """
    return replace(_setting(name, kind.model_fields[name]), name=key or name, flag=flag)


def _section(annotation: object) -> type[Settings] | None:
    """The class of a section, of one that may be missing too."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Settings):
            return part if get_origin(annotation) not in (dict, list) else None
    return None


def _setting(name: str, field: FieldInfo) -> Setting:
    flag = _flag(field)
    text = " ".join((field.description or "").split())
    if flag is not None and flag.unit:
        text = f"{text.removesuffix('.')}, {flag.unit}."
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return Setting(name, field.annotation, default, text, flag)


def _flag(field: FieldInfo) -> Flag | None:
    return next((m for m in field.metadata if isinstance(m, Flag)), None)


def _aliases(kind: type[BaseModel]) -> dict[str, str]:
    """Second names of fields, such as ASE's ``fmax`` of ``force_tol``."""
    found = {}
    for name, field in kind.model_fields.items():
        for choice in getattr(field.validation_alias, "choices", ()):
            if choice != name:
                found[name] = str(choice)
    return found


def _refuse_unknown(values: dict[str, Any], kind: type[BaseModel], source: str) -> None:
    known = [*kind.model_fields, *_aliases(kind).values()]
    for key in values:
        if key not in known:
            close = get_close_matches(str(key).replace("-", "_"), known, n=1, cutoff=0.4)
            nearest = f"Did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"{source}: unknown option {str(key)!r}. {nearest}Valid options: {', '.join(kind.model_fields)}."
            )


def _is_list(annotation: object) -> bool:
    return get_origin(annotation) is list or any(_is_list(part) for part in get_args(annotation))
