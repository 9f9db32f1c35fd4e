"""The terms of `nk.penalty`: their values and gradients beside the reference, at zero, twice, compiled, on devices."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
import pulled
from normkit.errors import ArgumentError
from normkit.torch import penalty_sum, penalty_values
from normkit.torch.penalty_work import Call

pytestmark = [pytest.mark.usefixtures("one_thread")]

REFERENCE = np.linspace(-1, 1, 12).reshape(4, 3)
TERMS = ("l1", "l2", "group", "toward", "orthogonality", "spectral")
FINE = ("l1", "l2", "group", "toward")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def weight(dtype=torch.float64, at=None):
    return nn.Parameter(torch.tensor(pulled.START if at is None else at, dtype=dtype))


def options(*terms):
    given = {term: 0.25 * (1 + i) for i, term in enumerate(terms)}
    return {**given, "reference": {"tensor": REFERENCE}} if "toward" in terms else given


def expected(w, term):
    """The value and gradient of a term, in float64."""
    w = pulled.wide(w.detach().double().numpy())
    more = {"group": ((0,),), "toward": (REFERENCE,), "orthogonality": ((0,),), "spectral": ((0,),)}.get(term, ())
    return tuple(getattr(pulled, f"{what}_{term}")(w, *more) for what in ("penalty", "gradient"))


def tolerance(dtype, term):
    kind = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    return max(kind, 1e-5) if term == "spectral" else kind  # from below, by iteration


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("term", TERMS)
def test_a_term_and_its_gradient(term, dtype):
    w = weight(dtype)
    pull = nk.penalty(w, **options(term))
    for _ in range(20 if term == "spectral" else 1):
        value = pull()
    value.backward()
    whole, gradient = expected(w, term)
    close = tolerance(dtype, term)
    assert value.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    assert value.shape == ()
    assert value.item() == pytest.approx(0.25 * whole, rel=max(close / 10, 1e-12))
    assert w.grad.dtype is dtype
    np.testing.assert_allclose(w.grad.double(), 0.25 * gradient, rtol=close, atol=close)


def test_the_terms_add_up_and_each_is_told():
    w = weight()
    pull = nk.penalty(w, **options(*TERMS))
    value = pull()
    assert list(pull.terms) == list(TERMS)
    assert not any(each.requires_grad for each in pull.terms.values())
    assert sum(each.item() for each in pull.terms.values()) == pytest.approx(value.item(), rel=1e-12)
    for i, term in enumerate(FINE):
        assert pull.terms[term].item() == pytest.approx(0.25 * (1 + i) * expected(w, term)[0], rel=1e-12)


def many():
    """Two dtypes, a convolution in another order of memory, an empty tensor, one number, the same memory twice."""
    torch.manual_seed(0)
    conv = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    flat = nn.Parameter(torch.randn(5, 7).t())
    tensors = {"a": weight(), "b": weight(torch.float32), "conv": conv, "flat": flat, "half": weight(torch.bfloat16)}
    return {
        **tensors,
        "empty": nn.Parameter(torch.zeros(0, 3)),
        "one": nn.Parameter(torch.tensor(2.0)),
        "a2": tensors["a"],
    }


@pytest.mark.parametrize("way", ["kernel", "foreach"])
def test_many_tensors_are_one_node_of_the_graph_and_give_what_the_rooms_give(way, monkeypatch):
    """On an accelerator the values are taken by foreach; here on the CPU."""
    if way == "foreach":
        monkeypatch.setattr(penalty_values, "_by_kernel", penalty_values._by_foreach)
    tensors = many()
    pull = nk.penalty(tensors, l1=0.1, l2=0.3, group=0.2, toward=0.5, per="tensor")
    with torch.no_grad():
        for w in set(tensors.values()):
            w.add_(1)
    value = pull()
    assert type(value.grad_fn).__name__ == "_TotalBackward"
    assert value.dtype is torch.float64
    entries = pull._entries
    assert len(entries) == len(tensors) - 1
    call = Call(entries.work, {"l1": 0.1, "l2": 0.3, "group": 0.2, "toward": 0.5}, entries.tensors())
    rooms, terms = penalty_sum.by_rooms(call)
    assert value.item() == pytest.approx(rooms.item(), rel=1e-6)
    assert [each.item() for each in pull.terms.values()] == pytest.approx(terms.tolist(), rel=1e-6)
    mine = torch.autograd.grad(value, entries.tensors())
    for mine_of, of_room, w in zip(mine, torch.autograd.grad(rooms, entries.tensors()), entries.tensors(), strict=True):
        assert mine_of.shape == w.shape
        assert mine_of.dtype is w.dtype
        close = 2e-2 if w.dtype is torch.bfloat16 else 1e-6
        torch.testing.assert_close(mine_of, of_room, rtol=close, atol=close)


@pytest.mark.parametrize("coefficient", [0.5, 0.1, 3e-5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gradient_of_l2_is_the_product_rounded_once(dtype, coefficient):
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(20, 30).to(dtype))
    nk.penalty(w, l2=coefficient)().backward()
    assert torch.equal(w.grad, w.detach() * coefficient)


@pytest.mark.parametrize("zero", ["all", "a group"])
@pytest.mark.parametrize("term", TERMS)
def test_both_derivatives_are_finite_at_zero(term, zero):
    start = pulled.START * 0 if zero == "all" else pulled.START * np.array([[1.0], [0.0], [1.0], [1.0]])
    w = weight(at=start)
    pull = nk.penalty(w, **{term: 0.5})
    (first,) = torch.autograd.grad(pull(), w, create_graph=True)
    assert torch.isfinite(first).all()
    if first.requires_grad:
        (second,) = torch.autograd.grad((first * torch.arange(12.0).reshape(4, 3)).sum(), w)
        assert torch.isfinite(second).all()
    if term in ("l1", "l2", "group"):
        assert not first[1].any()
    pull().backward()
    torch.testing.assert_close(w.grad, first.detach())


@pytest.mark.parametrize("term", TERMS[:5])
def test_the_second_derivative_is_that_of_the_first(term):
    w = weight()
    pull = nk.penalty(w, **options(term))
    assert torch.autograd.gradgradcheck(lambda _: pull(), w) if term != "l1" else True
    (first,) = torch.autograd.grad(pull(), w, create_graph=True)
    torch.testing.assert_close(first.detach().numpy(), 0.25 * expected(w, term)[1], rtol=1e-10, atol=1e-12)


def test_each_call_builds_a_graph_of_its_own():
    w = weight()
    pull = nk.penalty(w, l2=1.0)
    pull().backward()
    pull().backward()
    assert torch.equal(w.grad, 2 * w.detach())


def test_a_weight_that_changed_between_call_and_backward_is_told():
    w = weight()
    value = nk.penalty(w, l2=1.0)()
    with torch.no_grad():
        w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize(
    ("terms", "backend"),
    [(FINE, "eager"), pytest.param(("orthogonality", "spectral"), "aot_eager", marks=pytest.mark.slow)],
    ids=["entries", "matrices"],
)
def test_compiled_in_one_graph_it_gives_the_same(terms, backend):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    pull = nk.penalty(model, **dict.fromkeys(terms, 0.1))
    with torch.no_grad():
        model[0].weight.add_(0.5)
    for _ in range(30 if "spectral" in terms else 1):
        eager = pull()
    told = dict(pull.terms)
    eager.backward()
    gradients = [p.grad.clone() for p in (model[0].weight, model[1].weight)]
    model.zero_grad()
    compiled = torch.compile(lambda x: model(x).sum() * 0 + pull(), fullgraph=True, backend=backend)
    value = compiled(torch.ones(1, 3))
    value.backward()
    torch.testing.assert_close(value, eager)
    torch.testing.assert_close(pull.terms, told)
    for p, gradient in zip((model[0].weight, model[1].weight), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_autocast_does_not_lower_it():
    torch.manual_seed(0)
    layer = nn.Linear(64, 64)
    pull = nk.penalty(layer, l2=0.1, orthogonality=0.1)
    plain = pull()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = pull()
    assert torch.equal(plain, lowered)


def test_a_scaled_loss_scales_its_gradient():
    w = weight(torch.float32)
    (nk.penalty(w, l2=0.5, l1=0.25)() * 65536).backward()
    assert torch.equal(w.grad, 65536 * (0.5 * w.detach() + 0.25 * w.detach().sign()))


def test_no_value_is_read_to_the_host():
    """Neither forward nor backward asks a tensor for its number."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert "_local_scalar_dense" not in str(func)
            assert "nonzero" not in str(func)
            return func(*args, **(kwargs or {}))

    w = weight()
    pull = nk.penalty(w, **options(*FINE))
    with Watch():
        (3 * pull()).backward()


def test_meta_and_fake_tensors_have_a_penalty_without_a_value():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.device("meta"):
        model = nn.Linear(3, 4)
    value = nk.penalty(model, l2=0.1, l1=0.1)()
    value.backward()
    assert value.is_meta
    assert model.weight.grad.is_meta
    with FakeTensorMode():
        model = nn.Linear(3, 4)
        value = nk.penalty(model, l2=0.1, group=0.1)()
        value.backward()
    assert value.shape == ()
    assert model.weight.grad.shape == (4, 3)


def test_many_gradients_at_once():
    w = weight()
    value = nk.penalty(w, l2=0.5, l1=0.25)()
    (found,) = torch.autograd.grad(value, w, torch.tensor([1.0, 2.0], dtype=torch.float64), is_grads_batched=True)
    once = 0.5 * w.detach() + 0.25 * w.detach().sign()
    torch.testing.assert_close(found, torch.stack([once, 2 * once]))


def test_torch_func_reaches_it_through_functional_call():
    model = nn.Linear(3, 4)
    pull = nk.penalty(model, l2=0.5)

    class Pulled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self):
            return pull()

    whole = Pulled()
    params = {name: 2 * p.detach() for name, p in whole.named_parameters()}
    found = torch.func.grad(lambda p: torch.func.functional_call(whole, p, ()))(params)
    torch.testing.assert_close(found["inner.weight"], model.weight.detach())  # 1/2 of twice the weight


def test_coefficients_are_read_and_set():
    w = weight()
    pull = nk.penalty(w, l2=0.5)
    assert (pull.l1, pull.l2) == (0.0, 0.5)
    pull.l2, pull.l1, pull.group = 0.25, 0.125, None
    assert pull().item() == pytest.approx(0.25 * expected(w, "l2")[0] + 0.125 * expected(w, "l1")[0])
    pull.l1 = pull.l2 = 0
    assert pull().item() == 0.0
    assert pull.terms == {}
    with pytest.raises(ArgumentError, match=r"l2=-1: expected a finite number of at least 0"):
        pull.l2 = -1
    assert pull.l2 == 0.0
    with pytest.raises(ArgumentError, match=r"toward=0\.1: it was absent when the penalty was made; give it there"):
        pull.toward = 0.1
