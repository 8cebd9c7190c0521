"""Exceptions of the package. Each also is the built-in exception that a careless caller would catch."""


class MmaceError(Exception):
    """Base class of every error that mmace_sim raises on purpose."""


class StructureError(MmaceError, ValueError):
    """A structure cannot be simulated as it is (overlapping atoms, no cell, non-finite numbers, ...)."""


class NotAStructureError(StructureError):
    """A file holds no structure at all: notes, a log, nothing. In a folder it is passed over, which the log says."""


class MomentShapeError(StructureError):
    """Magnetic moments have a shape other than (n_atoms, 3) or (n_atoms,)."""


class MissingMomentsError(StructureError):
    """A structure carries no magnetic moments and none were asked for."""


class UnsupportedElementError(StructureError):
    """A structure holds an element that the model was not made for."""


class ModelFileError(MmaceError, ValueError):
    """A model file is missing, truncated, corrupted or of a newer format."""


class UncalibratedModelError(ModelFileError):
    """A model is asked for uncertainties that its file does not have."""


class ConfigError(MmaceError, ValueError):
    """A configuration holds an unknown key or an impossible value."""


class DataError(MmaceError, ValueError):
    """A data set cannot be used for training or evaluation."""


class UnsupportedOptionError(MmaceError, ValueError):
    """An option is valid in itself but not for this model, structure or host."""


class UnsupportedConstraintError(StructureError, UnsupportedOptionError):
    """A structure has a constraint that cannot be honoured."""


class OutputError(MmaceError, OSError):
    """A result cannot be written (read-only folder, full disk, existing files)."""


class MissingExtraError(MmaceError, ImportError):
    """A library of an optional feature is not installed; the message names the extra that brings it."""


class PhysicsWarning(UserWarning):
    """A model violates a physical identity, or is used outside of its range."""
