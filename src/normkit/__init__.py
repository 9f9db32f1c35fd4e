"""normkit: record, normalize, penalize, decay and constrain the weight norms of neural networks.

The verbs live behind one door per framework (`import normkit.torch as nk`). Here are the parts that need none:

    norm(x, "l2")      a norm of any array          stats(x)       its mergeable sums
    load(path)         a recording                  latest()       the newest recording below runs/
    merge(paths)       recordings of several processes as one
    Every, Param, Stats, Finding                    the errors
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing's own would load typing, and every process below `normkit run` comes by here
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from normkit.errors import ArgumentError, FileError, ModelError, NormkitError, StateError
    from normkit.norms import norm, stats
    from normkit.readers.newest import latest
    from normkit.readers.recording import Recording, load
    from normkit.recording.merge import merge
    from normkit.types import Every, Finding, Param, Stats

# Where a public name lives; it is imported when first used, so that `import normkit` costs nothing.
_HOMES = {
    "norm": "normkit.norms",
    "stats": "normkit.norms",
    "load": "normkit.readers.recording",
    "merge": "normkit.recording.merge",
    "latest": "normkit.readers.newest",
    "Recording": "normkit.readers.recording",
    "Every": "normkit.types",
    "Finding": "normkit.types",
    "Param": "normkit.types",
    "Stats": "normkit.types",
    "ArgumentError": "normkit.errors",
    "FileError": "normkit.errors",
    "ModelError": "normkit.errors",
    "NormkitError": "normkit.errors",
    "StateError": "normkit.errors",
}
_DOORS = ("torch", "keras", "jax", "tensorflow")

__all__ = [
    "ArgumentError",
    "Every",
    "FileError",
    "Finding",
    "ModelError",
    "NormkitError",
    "Param",
    "Recording",
    "StateError",
    "Stats",
    "latest",
    "load",
    "merge",
    "norm",
    "record",
    "stats",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("normkit")
    if name not in _HOMES:
        raise AttributeError(f"module 'normkit' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def record(*what: object, **_: object) -> NoReturn:
    """Say which door to import: recording needs to know the framework.

    Raises: ArgumentError, always.
    """
    from normkit.errors import ArgumentError

    roots = {cls.__module__.partition(".")[0] for item in what for cls in type(item).__mro__}
    door = next((door for door in _DOORS if door in roots), None)
    doors = " or ".join(f"import normkit.{name} as nk" for name in ([door] if door else _DOORS))
    raise ArgumentError(
        f"normkit.record belongs to a framework's door: write `{doors}`, then nk.record(model, optimizer)"
    )
