"""One property in each folder: its declaration, how it is computed, what it writes, its figures."""

from functools import cache
from importlib.metadata import entry_points

from mmace_sim.engine.declaration import Property, imported
from mmace_sim.errors import UnsupportedOptionError

ENTRY_POINT_GROUP: str = "mmace_sim.properties"
"""Entry points of this group are objects of `Property`: other packages add commands by them."""

_OWN: dict[str, str] = {
    "relax": "mmace_sim.properties.relax.declaration:RELAX",
    "eos": "mmace_sim.properties.eos.declaration:EOS",
    "md": "mmace_sim.properties.md.declaration:MD",
    "moments": "mmace_sim.properties.moments.declaration:MOMENT_MINIMA",
    "order": "mmace_sim.properties.order.declaration:ORDER",
    "bain": "mmace_sim.properties.bain.declaration:BAIN",
    "exchange": "mmace_sim.properties.exchange.declaration:EXCHANGE",
    "anisotropy": "mmace_sim.properties.anisotropy.declaration:ANISOTROPY",
    "elastic": "mmace_sim.properties.elastic.declaration:ELASTIC",
    "curie": "mmace_sim.properties.curie.declaration:CURIE",
    "phonons": "mmace_sim.properties.phonons.declaration:PHONONS",
}


@cache
def declared_properties() -> dict[str, Property]:
    """All properties by name, the package's own first."""
    found = {name: imported(where) for name, where in _OWN.items()}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        of = f"property '{entry.name}' of {entry.dist.name if entry.dist else 'a plugin'}"
        try:
            loaded = entry.load()
        except Exception as error:
            raise UnsupportedOptionError(
                f"{of} cannot be imported: {error}. Reinstall or remove that package."
            ) from error
        if not isinstance(loaded, Property) or loaded.name != entry.name:
            raise UnsupportedOptionError(f"{of} is no Property of that name. Remove that package.")
        found.setdefault(entry.name, loaded)
    return found
