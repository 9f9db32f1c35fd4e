"""What people type by mistake around `stats` and a recorder, and the sentences they read."""

from __future__ import annotations

import numpy as np
import pytest

from normkit.errors import ArgumentError, FileError

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp

import normkit.jax as nk

TREE = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}


def taken(tree=None):
    return nk.stats(params=TREE if tree is None else tree)


def many(count):
    """As `vmap` and `scan` stack them."""
    return jax.jit(jax.vmap(lambda _, stats: stats, in_axes=(0, None)))(jnp.ones(count), taken())


@pytest.fixture
def recorder(tmp_path):
    with nk.record(tmp_path / "a", params=TREE, every=1, quiet=True) as recorder:
        yield recorder


def deleted(x):
    x = x + 0
    x.delete()
    return x


CALLS = {
    "a step on the device": (
        lambda rec: rec(jnp.int32(3), taken()),
        r"recorder\(step=<int32 array on a device>\): reading it would wait for the device; count in a Python int",
    ),
    "half a step": (lambda rec: rec(1.5, taken()), r"recorder\(step=1\.5\): expected a whole number of steps made"),
    "a step before the first": (lambda rec: rec(-1, taken()), r"recorder\(step=-1\): expected a whole number"),
    "True": (lambda rec: rec(True, taken()), r"recorder\(step=True\): expected a whole number"),
    "steps from 0": (
        lambda rec: rec(0, taken()),
        r"recorder\(step=0\): step 0 is before the first one, .*; count from 1 \(step \+ 1\), or leave the step out",
    ),
    "a step again": (
        lambda rec: (rec(4, taken()), rec(4, taken())),
        r"recorder\(step=4\): step 4 was given before; steps grow from call to call",
    ),
    "a tree as stats": (
        lambda rec: rec(1, TREE),
        r"recorder\(\.\.\., dict\): expected what nk\.stats\(\.\.\.\) returned; give trees by name: recorder",
    ),
    "a tree alone": (lambda rec: rec(TREE), r"recorder\(step=dict\): expected a whole number of steps made"),
    "both": (lambda rec: rec(taken(), params=TREE), r"recorder\(stats, params=\.\.\.\): give the stats or the trees"),
    "another tree": (
        lambda rec: rec(taken({"other": jnp.ones(3)})),
        r"recorder\(stats\): other of shape \(3,\) is none of the 2 tensors that this recorder began with",
    ),
    "another shape": (
        lambda rec: rec(taken({"w": jnp.ones((2, 4)), "b": jnp.ones(3)})),
        r"recorder\(stats\): w has shape \(2, 4\), and in the recording \(2, 3\)",
    ),
    "another tree outside": (
        lambda rec: rec(params={"other": jnp.ones(3)}),
        r"params holds other, none of the 2 tensors taken from the recording \(b, \.\.\.\)",
    ),
    "another shape outside": (
        lambda rec: rec(params={"w": jnp.ones((2, 4))}),
        r"params: w has shape \(2, 4\), and \(2, 3\) in the recording",
    ),
    "donated weights": (
        lambda rec: rec(params={**TREE, "w": deleted(TREE["w"])}),
        r"params: w of shape \(2, 3\) is deleted: it was donated to a jitted function \(donate_argnums\); give what",
    ),
    "a call inside jit": (
        lambda rec: jax.jit(lambda tree: rec(nk.stats(params=tree)))(TREE),
        r"recorder\(stats of 2 tensors\) was called while jax traces a function: return the stats from the jitted step",
    ),
    "trees inside jit": (
        lambda rec: jax.jit(lambda tree: rec(params=tree))(TREE),
        r"params: b of shape \(3,\) is being traced .*: inside jit take nk\.stats",
    ),
    "an ensemble's stats": (
        lambda rec: rec(many(3)),
        r"recorder\(stats of 3 steps\): stats stacked by lax\.scan are of the steps up to the one given: exp.*=3",
    ),
    "an ensemble's stats at its step": (
        lambda rec: (rec(4), rec(5, many(3))),
        r"recorder\(step=5, stats of 3 steps\): .*: expected step=7, as step 4 was before; of an ensemble \(vmap",
    ),
    "stats of an ensemble's scan": (
        lambda rec: rec(jax.tree.map(lambda x: jnp.stack([jnp.stack([x.astype(jnp.float32)])]), taken())),
        r"recorder\(stats\): these stats have 2 axes of steps; expected at most one",
    ),
}


@pytest.mark.parametrize(("call", "sentence"), CALLS.values(), ids=CALLS)
def test_calls(call, sentence, recorder):
    with pytest.raises(ArgumentError, match=f"^{sentence}"):
        call(recorder)
    recorder(taken())
    assert not recorder.closed


STATS = {
    "nothing": (
        nk.stats,
        r"stats\(\): expected trees of arrays, some of params, grads, updates; all were left out",
    ),
    "updates and before": (
        lambda: nk.stats(TREE, updates=TREE, before=TREE),
        r"stats\(updates=<dict>, before=<dict>\): give one of the two",
    ),
    "before alone": (
        lambda: nk.stats(grads=TREE, before=TREE),
        r"stats\(before=<dict>\) needs params=, the weights after",
    ),
    "grads of another model": (
        lambda: nk.stats(TREE, {"kernel": jnp.ones(2)}),
        r"grads holds kernel, none of the 2 tensors taken from params \(b, \.\.\.\); give trees of the same structure",
    ),
    "a loss for the gradients": (lambda: nk.stats(TREE, jnp.ones(())), r"grads holds weight, none of the 2 tensors"),
    "gradients of other shapes": (
        lambda: nk.stats(TREE, {"w": jnp.ones((3, 2))}),
        r"grads: w has shape \(3, 2\), and \(2, 3\) in params",
    ),
    "half of the updates": (
        lambda: nk.stats(TREE, TREE, {"w": TREE["w"]}),
        r"updates lacks b, which grads has; give trees of the same structure",
    ),
    "half of the old weights": (lambda: nk.stats(TREE, before={"w": TREE["w"]}), r"before lacks b, which params has"),
    "complex": (lambda: nk.stats({"w": jnp.ones(2, jnp.complex64)}), r"params: an array of complex64 was given"),
    "integers": (
        lambda: nk.stats({"n": jnp.ones(2, int)}),
        r"none of the 1 arrays given is trainable; select='all' takes them all",
    ),
    "a rule that matches nothing": (lambda: nk.stats(TREE, select="conv*"), r".*'conv\*' matches none of 2 parameters"),
}


@pytest.mark.parametrize(("call", "sentence"), STATS.values(), ids=STATS)
def test_stats(call, sentence):
    with pytest.raises(ArgumentError, match=f"^{sentence}"):
        jax.jit(call)()


RECORDS = {
    "weights first": (
        lambda path: nk.record(TREE),
        r"record\(a dict\): expected the path of the file first; give the weig",
    ),
    "a resumed run of nothing": (
        lambda path: nk.record(path, resume=True),
        r"record\(resume=True\): a resumed run is known by its weights; give those loaded as params=",
    ),
    "a rule": (lambda path: nk.record(path, params=TREE, select="conv*"), r".*'conv\*' matches none of 2 parameters"),
    "no tree": (lambda path: nk.record(path, params="w"), r"params='w' holds no array"),
    "every": (
        lambda path: nk.record(path, params=TREE, every="often"),
        r"every='often': expected a number of optimizer",
    ),
    "inside jit": (
        lambda path: jax.jit(lambda tree: nk.record(path, params=tree))(TREE),
        r"params: b of shape \(3,\) is being traced",
    ),
    "an axis nobody has": (
        lambda path: nk.record(path, params=TREE, per={"b": 0}),
        r"per=\{'b': 0\}: no tensor of these has an axis 0 and others besides",
    ),
}


@pytest.mark.parametrize(("call", "sentence"), RECORDS.values(), ids=RECORDS)
def test_record(call, sentence, tmp_path):
    with pytest.raises(ArgumentError, match=f"^{sentence}"):
        call(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError):
        nk.record(tmp_path / "file" / "a.norms", params=TREE)


def test_groups_of_stats_are_asked_of_stats(tmp_path):
    recorder = nk.record(tmp_path / "a", per="out", quiet=True)
    with pytest.raises(
        ArgumentError, match=r"^record\(per='out'\): these stats are of whole tensors; give per= to nk\.st"
    ):
        recorder(taken())


@pytest.mark.parametrize("step", [1, np.int64(1)])
def test_steps_of_the_host(step, recorder):
    recorder(step, taken())
    recorder(stats=taken(), step=np.int32(5))
    assert recorder.steps == 5


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (lambda: jax.random.key(0), r"expected one number, got shape \(\) of key<fry>; it is not recorded"),
        (lambda: jnp.array(1j), r"expected one number, got shape \(\) of complex64; it is not recorded"),
        (lambda: deleted(jnp.ones(())), "it is deleted, as it was donated"),
    ],
    ids=["a key", "a complex number", "a donated number"],
)
def test_what_is_no_number_is_left_out_of_the_log(value, sentence, recorder):
    recorder(taken())
    with pytest.warns(RuntimeWarning, match=rf"log\(x=\.\.\.\): {sentence}"):
        recorder.log(x=value())
    assert recorder.broken is None


def test_a_logged_tracer_is_left_out(recorder):
    recorder(taken())
    with pytest.warns(RuntimeWarning, match=r"log\(loss=\.\.\.\): it is being traced; return it from the jitted step"):
        jax.jit(lambda x: recorder.log(loss=x))(1.0)
