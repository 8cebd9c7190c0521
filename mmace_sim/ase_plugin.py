"""Registration with ASE: the entry point of the group ``ase.plugins`` (experimental in ASE 3.29).

Nothing heavy is imported here: ASE loads this module for ``ase info --plugins``, and a plugin that raises breaks it.
"""

try:
    from ase._4.plugins.plugin import CalculatorPlugin
except ImportError:  # ASE older than 3.29, or one that has moved its experimental classes
    __ase_plugins__ = set()
else:
    __ase_plugins__ = {
        CalculatorPlugin(
            name="mmace",
            citation="Magnetic MACE potentials, arXiv:2604.08143",
            implementation="mmace_sim.calculator.MMACECalculator",
        )
    }
