"""Arrays on a mesh of devices: read whole where jax asks for every sharding, refused where but a part is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from normkit.errors import ArgumentError


def automatic(compute: Callable[..., Any], *args: Any, like: Any = None) -> Any:
    """`compute(*args)`; where arrays lie on a mesh with Explicit axes XLA chooses inside, and the result is everywhere,
    or where the array `like` is.

    With such axes (`jax.make_mesh`) jax asks how each reshape is to be sharded, and refuses those it cannot follow.
    """
    meshes = [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(args) if isinstance(x, jax.Array)]
    mesh = next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)
    if mesh is None or mesh.manual_axes:
        return compute(*args)
    spec = PartitionSpec() if like is None else jax.typeof(like).sharding.spec
    here = spec if not jax.sharding.get_abstract_mesh().empty else NamedSharding(mesh, spec)
    return jax.sharding.auto_axes(compute, out_sharding=here)(*args)


def refuse_parts(arrays: Iterable[tuple[str, Any]]) -> None:
    """Of (what it is, array) pairs, inside shard_map or pmap: are they the same on every device, as far as jax knows?

    Raises: ArgumentError that names the first one of which one device's part may be seen.
    """
    axes = jax.sharding.get_abstract_mesh().manual_axes
    if not axes:
        return
    known = bool(_varying(jax.lax.axis_index(axes[0])))  # nothing varies where jax was told not to look
    for what, array in arrays:
        if not known or _varying(array):
            raise ArgumentError(
                f"{what} of shape {tuple(array.shape)} may be one device's part, inside shard_map or pmap over "
                f"{', '.join(map(repr, axes))}: take the stats outside of it, in the jitted function around it, or of "
                "arrays that are the same everywhere (shard_map with check_vma=True)"
            )


def _varying(x: Any) -> frozenset[Any]:
    """The axes along which the devices may hold something else."""
    kind = jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)
    found: frozenset[Any] = getattr(kind, "vma", frozenset()) if manual is None else manual.varying
    return found
