"""JAX arrays: sums taken where the arrays are, by one jitted function, inside the user's own or outside of it.

On a CPU the compiled kernel is called from within the jitted function (`jax_call`), elsewhere XLA reduces in float64.
Nothing here waits for a device but `wait()` and what says so. Arrays that the next step donates may be given: XLA
keeps their memory until the sums that were asked for are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from normkit.errors import ArgumentError, in_brief
from normkit.ops.cpu import KINDS
from normkit.ops.jax_call import registered, sums_by_kernel
from normkit.ops.jax_mesh import automatic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

ROWS = 6  # of sums; the seventh is the dot product with a partner


class Pending:
    """A matrix of sums on its way: parts [sums][some columns], and which columns these are."""

    def __init__(self, columns: int, parts: Sequence[tuple[list[int], Any]]) -> None:
        self._matrix = np.full((ROWS, columns), np.nan)
        self._parts = list(parts)

    def ready(self) -> bool:
        """Whether `wait` would return at once."""
        return all(part.is_ready() for _, part in self._parts)

    def wait(self) -> tuple[Matrix, ...]:
        """The matrix, [6][N]."""
        while self._parts:
            columns, part = self._parts.pop()
            self._matrix[:, columns] = jax.device_get(part)
        return (self._matrix,)


# --- inside a jitted function ----------------------------------------------------------------------------------------


def traced_sums(arrays: Sequence[Any], partners: Sequence[Any] | None = None) -> Any:
    """[6][N] sums of every array, in float64 and right to 1e-12 whatever jax_enable_x64 says; for use inside jit.

    With `partners` [7][N]: the last row is the sum of the products with the partner of the same shape. A column of NaN
    where an array is None, NaN in the last row where its partner is. No gradient passes through.

    Raises: ArgumentError for complex numbers, random keys, and partners of another shape.
    """
    return automatic(_sums_of, list(arrays), None if partners is None else list(partners))


def _sums_of(arrays: list[Any], partners: list[Any] | None) -> Any:
    pairs = list(zip(arrays, [None] * len(arrays) if partners is None else partners, strict=True))
    alone = [i for i, (x, partner) in enumerate(pairs) if x is not None and partner is None]
    paired = [i for i, (x, partner) in enumerate(pairs) if x is not None and partner is not None]
    parts: list[tuple[list[int], Any]] = []
    if alone:
        parts.append((alone, traced_sums_of_rows([_flat(pairs[i][0]) for i in alone])))
    if paired:
        both = [[_flat(pairs[i][k]) for i in paired] for k in (0, 1)]
        parts.append((paired, traced_sums_of_rows(*both)))
    return _placed(ROWS + (partners is not None), len(pairs), parts)


def traced_step_sums(arrays: Sequence[Any], olds: Sequence[Any]) -> tuple[Any, Any]:
    """Of a step, in one pass: [6][N] sums of every array, and [7][N] of array - old with <old, array - old>.

    The difference is taken in float64. As `traced_sums` otherwise; there is no None here.
    """
    matrix = automatic(_step_sums_of, list(arrays), list(olds))
    return matrix[:ROWS], matrix[ROWS:]


def _step_sums_of(arrays: list[Any], olds: list[Any]) -> Any:
    return traced_sums_of_rows([_flat(x) for x in arrays], [_flat(x) for x in olds], step=True)


def traced_sums_of_rows(blocks: Sequence[Any], partners: Sequence[Any] | None = None, *, step: bool = False) -> Any:
    """The same for every row of 2-D blocks, one block after the other: [6, 7 or with `step` 13][rows of all]."""
    with float64():
        own = [jax.lax.stop_gradient(_readable(block)) for block in blocks]
        other = [jax.lax.stop_gradient(_readable(block)) for block in partners or ()]
        for i, (block, partner) in enumerate(zip(own, other, strict=False)):
            if block.shape != partner.shape:
                raise ArgumentError(
                    f"arrays of {block.size} and {partner.size} entries were given as partners; expected equal shapes"
                )
            own[i], other[i] = _alike(block, partner)
        rows = ROWS if partners is None else 2 * ROWS + 1 if step else ROWS + 1
        if not registered():
            return _sums_by_xla(*own, *other, rows=rows)
        return jax.lax.platform_dependent(
            *own,
            *other,
            cpu=lambda *given: sums_by_kernel(*given, rows=rows),
            default=lambda *given: _sums_by_xla(*given, rows=rows),
        )


def _sums_by_xla(*blocks: Any, rows: int) -> Any:
    """What `sums_by_kernel` gives, by XLA's reductions over each block."""
    wide = [block.astype(jnp.float64) for block in blocks]
    if rows == ROWS:
        return jnp.concatenate([_columns(x) for x in wide], 1)
    pairs = zip(wide[: len(wide) // 2], wide[len(wide) // 2 :], strict=True)
    if rows == ROWS + 1:
        return jnp.concatenate([_columns(x, partner) for x, partner in pairs], 1)
    return jnp.concatenate([jnp.concatenate([_columns(x), _columns(x - old, old)]) for x, old in pairs], 1)


def _columns(x: Any, partner: Any = None) -> Any:
    size = jnp.abs(x)
    rows = [x.sum(1), size.sum(1), (x * x).sum(1), size.max(1, initial=0.0)]
    rows += [found.sum(1, dtype=jnp.float64) for found in (x == 0, ~jnp.isfinite(x))]
    return jnp.stack([*rows, (x * partner).sum(1)] if partner is not None else rows)


def _placed(rows: int, columns: int, parts: Sequence[tuple[list[int], Any]]) -> Any:
    """One matrix of all parts, NaN where there is none."""
    with float64():
        if len(parts) == 1 and len(parts[0][0]) == columns and parts[0][1].shape[0] == rows:
            return parts[0][1]
        matrix = jnp.full((rows, columns), np.nan, jnp.float64)
        for places, part in parts:
            matrix = matrix.at[: part.shape[0], np.array(places)].set(part)
        return matrix


def _flat(x: Any) -> Any:
    return x.reshape(1, -1) if isinstance(x, jax.Array) else np.asarray(x).reshape(1, -1)


def _readable(x: Any) -> Any:
    """`x` in one of the kernel's formats; exact for everything up to 53 bits."""
    refuse_unreadable(x)
    x = jnp.asarray(x)
    return x if x.dtype.name in KINDS else x.astype(jnp.float64)


def _alike(x: Any, partner: Any) -> tuple[Any, Any]:
    """Both in one format, the larger where they differ."""
    if x.dtype == partner.dtype:
        return x, partner
    common = jnp.float64 if jnp.float64 in (x.dtype, partner.dtype) else jnp.float32
    return x.astype(common), partner.astype(common)


def float64() -> AbstractContextManager[None]:
    """Inside, jax knows float64, in this thread; the user's own setting is left alone."""
    return cast("AbstractContextManager[None]", jax.enable_x64(True))


# --- outside of one --------------------------------------------------------------------------------------------------


def sums(arrays: Sequence[Any], *, cache: object = None) -> Pending:
    """The six sums of every array, dispatched and not waited for; a column of NaN for None.

    Arrays may lie on any devices, sharded or not: entries are counted once, copies of them not at all. `cache` is what
    other drawers take; here jit keeps what there is to keep.
    Raises: ArgumentError for complex numbers, random keys, traced arrays, arrays deleted or partly elsewhere.
    """
    groups: dict[frozenset[Any], list[int]] = {}
    for i, x in enumerate(arrays):
        if x is not None:
            refuse_unreadable(x)
            refuse_absent(x)
            groups.setdefault(frozenset(x.devices()) if isinstance(x, jax.Array) else frozenset(), []).append(i)
    return Pending(len(arrays), [(places, _dispatched([arrays[i] for i in places])) for places in groups.values()])


@contextmanager
def outside() -> Iterator[None]:
    """Inside, a jitted function of ours runs as it should, whatever the user has set for his own."""
    with float64(), jax.debug_nans(False), jax.debug_infs(False), jax.disable_jit(False):
        yield


def _dispatched(arrays: list[Any]) -> Any:
    with outside():
        return _jitted_sums(arrays)


_jitted_sums = jax.jit(traced_sums)


def matrix_of_sums(arrays: Sequence[Any]) -> Matrix:
    """[6][N] sums, waited for."""
    return sums(arrays).wait()[0]


def sums_of_rows(rows: Any) -> Matrix:
    """[6][R] sums of the rows of a 2-D array, waited for."""
    refuse_absent(rows)
    with outside():
        return cast("Matrix", jax.device_get(_jitted_sums_of_rows(rows)))


_jitted_sums_of_rows = jax.jit(lambda rows: automatic(lambda rows: traced_sums_of_rows([rows]), rows))


def as_rows(x: Any, kept: tuple[int, ...]) -> Any:
    """Kept axes to the front in their order and flattened, the rest flattened: [R][..]."""
    refuse_unreadable(x)
    if isinstance(x, jax.core.Tracer) or not isinstance(x, jax.Array):
        return _rows_of(x, kept)
    with outside():
        return _jitted_rows_of(x, kept)


def _rows_of(x: Any, kept: tuple[int, ...]) -> Any:
    front = jnp.moveaxis(x, kept, range(len(kept)))
    count = int(np.prod([x.shape[axis] for axis in kept], dtype=np.int64))
    return front.reshape(count, x.size // count if count else 0)


_jitted_rows_of = jax.jit(lambda x, kept: automatic(lambda x: _rows_of(x, kept), x), static_argnums=1)


def as_float64(x: Any) -> NDArray[np.float64]:
    """The numbers, waited for."""
    refuse_unreadable(x)
    refuse_absent(x)
    return np.asarray(jax.device_get(x)).astype(np.float64)


# --- what cannot be read ---------------------------------------------------------------------------------------------


def is_key(x: Any) -> bool:
    """Is `x` an array of random keys (`jax.random.key`)?"""
    return bool(jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key))


def refuse_unreadable(x: Any, what: str = "an array") -> None:
    """Raises: ArgumentError where `x` holds no real numbers."""
    if isinstance(x, jax.ShapeDtypeStruct):
        raise ArgumentError(f"{what} of shape {x.shape} was given without its numbers (a ShapeDtypeStruct)")
    if is_key(x):
        raise ArgumentError(f"{what} of random keys was given ({x.dtype}), and keys have no norm; leave them out")
    dtype = np.dtype(getattr(x, "dtype", np.float64))
    if dtype.kind == "c":
        raise ArgumentError(
            f"{what} of {dtype.name} was given; norms here are of real numbers: pass abs(x), or both parts"
        )


def refuse_absent(x: Any, what: str = "an array") -> None:
    """Raises: ArgumentError where the numbers of `x` are not here to be read."""
    if not isinstance(x, jax.Array):
        return
    shape = tuple(x.shape)
    if isinstance(x, jax.core.Tracer):
        raise ArgumentError(
            f"{what} of shape {shape} is being traced ({in_brief(type(x).__name__)}): inside jit take "
            "nk.stats(params=...), return it from the function and read it outside"
        )
    if x.is_deleted():
        raise ArgumentError(
            f"{what} of shape {shape} is deleted: it was donated to a jitted function (donate_argnums); give what that "
            "function returned in its place"
        )
    if not x.is_fully_addressable and not x.is_fully_replicated:
        raise ArgumentError(
            f"{what} of shape {shape} lies partly on devices of other processes: take nk.stats(params=...) inside the "
            "jitted step, which every process runs"
        )
