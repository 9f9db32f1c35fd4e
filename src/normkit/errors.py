"""The error kinds, by cause. The low level raises the fact; the door adds which parameter."""


class NormkitError(Exception):
    """Parent of every error that normkit raises on purpose."""


class ArgumentError(NormkitError, ValueError):
    """An argument has a value that cannot be used."""


class ModelError(NormkitError):
    """The model or optimizer given does not allow what was asked of it."""


class FileError(NormkitError, OSError):
    """A file is missing, is not what it should be, or cannot be written."""


class StateError(NormkitError, RuntimeError):
    """An object was used at a moment when it cannot serve."""
