"""A test class that any magnetic energy model can inherit."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from mmace_sim.testing.identities import IDENTITIES, structure_for
from mmace_sim.testing.probe import ModelProbe, transformed

_EXPECTED = [HealthCheck.differing_executors, HealthCheck.too_slow]
"""One test that several classes inherit, and models that take their time."""
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""All but shrinking: no seed is simpler than another, and a failing model would be evaluated a thousand times."""


class MagneticModelConformance:
    """Every identity of a magnetic model as a property test.

    Inherit it, name the class ``Test…``, and define the model, in float64::

        class TestMyModel(MagneticModelConformance):
            @pytest.fixture(scope="class")
            @classmethod
            def model(cls):
                return MyModel()

    The model is called as ``model(graph, edge_vectors)`` with a `mmace_sim.graph.batch.MagneticGraph`,
    returns "energy" and "node_energy", and has the attributes `elements`, `r_max` and `spin_orbit`.

    Attributes:
        smooth: Set it to False for a model that is not smooth at m = 0 (classical unit vectors).
        max_atoms: Largest number of atoms of the structures drawn.
        tolerances: Other tolerances than those of `IDENTITIES`, by name.
    """

    smooth: bool = True
    max_atoms: int = 4
    tolerances: dict[str, float] = {}  # noqa: RUF012 - replaced by subclasses, never changed

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Any:
        """Return the model; define it in the class that inherits."""
        raise NotImplementedError("define a fixture `model` of scope 'class'")

    @pytest.mark.parametrize("name", list(IDENTITIES))
    @settings(max_examples=3, deadline=None, phases=_PHASES, suppress_health_check=_EXPECTED)
    @given(seed=st.integers(0, 2**32 - 1), data=st.data())
    def test_identity(self, model: nn.Module, name: str, seed: int, data: st.DataObject) -> None:
        """Measure one identity on random structures."""
        identity = IDENTITIES[name]
        probe, rng = ModelProbe(model), np.random.default_rng(seed)
        if not identity.applies_to(probe):
            pytest.skip("does not hold with spin–orbit coupling, or needs what the model does not have")
        if not self.smooth and (identity.smooth or name == "no_field_without_moments"):
            pytest.skip("the model is not smooth at m = 0")
        n_atoms = data.draw(st.integers(1, self.max_atoms), label="n_atoms")
        violation = identity.measure(probe, structure_for(probe, rng, n_atoms=n_atoms), rng).relative
        limit = self.tolerances.get(name, identity.tolerance)
        assert violation <= limit, f"{identity.statement}: violated by {violation:.2g} > {limit:.2g}"

    def test_moments_matter(self, model: nn.Module) -> None:
        """Make sure that the model couples moments to each other: a constant would obey every identity."""
        probe, rng = ModelProbe(model), np.random.default_rng(0)
        atoms = structure_for(probe, rng, n_atoms=2)
        turned = transformed(atoms[[0]], spin=-np.eye(3)) + atoms[[1]]
        before, after = probe.energies([atoms, turned])
        assert abs(before - after) > 1e-8 * probe.predict(atoms).energy_scale

    def test_spin_orbit_coupling_is_there_if_promised(self, model: nn.Module) -> None:
        """Make sure that a model with spin–orbit coupling notices a rotation of its moments alone."""
        if not model.spin_orbit:
            pytest.skip("no spin–orbit coupling")
        probe, rng = ModelProbe(model), np.random.default_rng(0)
        atoms = structure_for(probe, rng, n_atoms=2)
        assert IDENTITIES["spin_rotation"].measure(probe, atoms, rng).relative > 1e-10
