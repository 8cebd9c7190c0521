"""Models by name: those embedded in the package and those that plugins register."""

from importlib.metadata import entry_points
from pathlib import Path

from mmace_sim.errors import ModelFileError
from mmace_sim.hub.catalogue import listed_files, read_catalogue
from mmace_sim.hub.store import installed_models

ENTRY_POINT_GROUP: str = "mmace_sim.models"
"""Entry points of this group are functions without arguments that return the path of a model file."""

MODEL_FOLDER: Path = Path(__file__).parents[1] / "models"
DEFAULT_MODEL: str = "mmace-3d-pbe"


def embedded_default() -> Path:
    """Path of the embedded default model."""
    return MODEL_FOLDER / f"{DEFAULT_MODEL}.safetensors"


def list_models() -> dict[str, Path]:
    """Names and files of all models at hand, the default first.

    Those of the package and of plugins, then files that ``MMACE_SIM_MODELS`` names, then the user's cache; a name is
    that of the first that has it.

    Raises:
        ModelFileError: If the entry point of a plugin fails.
    """
    models = {"default": embedded_default()}
    models.update({path.stem: path for path in sorted(MODEL_FOLDER.glob("*.safetensors"))})
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            models[entry.name] = Path(entry.load()())
        except Exception as error:
            raise ModelFileError(
                f"model '{entry.name}' of {entry.dist.name if entry.dist else 'a plugin'} cannot be loaded: {error}. "
                "Reinstall or remove that package."
            ) from error
    for further in (listed_files(), installed_models()):
        models = models | {name: path for name, path in further.items() if name not in models}
    return models


def split_head(name_or_path: str | Path) -> tuple[str, str | None]:
    """Name or path of a model and the head chosen behind it, as in ``iron.safetensors#fcc``."""
    text = str(name_or_path)
    if "#" not in text or is_file(text):
        return text, None
    name, head = text.rsplit("#", 1)
    return name, head


def resolve_model(name_or_path: str | Path) -> Path:
    """File of a model given by name or path, with or without a head.

    Raises:
        ModelFileError: If it is neither a known name nor an existing file.
    """
    name = split_head(name_or_path)[0]
    if is_file(name):
        return Path(name)
    models = list_models()
    if name in models and models[name].is_file():
        return models[name]
    if name in read_catalogue():
        raise ModelFileError(f"model '{name}' is not installed. Fetch it: {fetch_command(name)}")
    raise ModelFileError(
        f"no model '{name}': neither a file nor one of the names {', '.join(models)} "
        "(see `mmace-sim models`)."
    )


def fetch_command(name: str) -> str:
    """The line that fetches a model of the catalogue, with its size and licence."""
    remote = read_catalogue()[name]
    return f"`mmace-sim models get {name}` ({remote.megabytes:.0f} MB, {remote.license})"


def is_file(name: str) -> bool:
    """Whether a name is that of a file; one that cannot be (too long, no permission) is not.

    Args:
        name: Name or path.
    """
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
