"""`nk.decay` beside what torch's optimizers do: their own decay, closures, fused kernels, gradient scalers, compile."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")
from torch import nn
from torch.testing._internal.common_optimizers import optim_db

import normkit.torch as nk
from normkit.errors import ModelError

pytestmark = pytest.mark.usefixtures("one_thread")


def own_decays():
    """Every configuration of torch's own list that decays: the class, its arguments, and whether that is decoupled."""
    for info in optim_db:
        for number, made in enumerate(info.optim_inputs_func(device="cpu", dtype=torch.float64)):
            terms = made.kwargs
            if not terms.get("weight_decay") or terms.get("fused"):
                continue
            name = info.optim_cls.__name__
            decoupled = name in ("AdamW", "Adafactor", "Muon") or terms.get("decoupled_weight_decay", False)
            yield pytest.param(info.optim_cls, terms, decoupled, id=f"{name}-{number}")


def two_alike(*shapes):
    torch.manual_seed(0)
    made = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    return [nn.Parameter(x.clone()) for x in made], [nn.Parameter(x.clone()) for x in made]


def stepped(ours, theirs, mine, own, steps=6):
    torch.manual_seed(1)
    for _ in range(steps):
        for a, b in zip(mine, own, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        kept = [a.grad for a in mine]
        ours.step()
        theirs.step()
        assert all(a.grad is grad for a, grad in zip(mine, kept, strict=True))


@pytest.mark.filterwarnings("ignore:.*capturable:UserWarning")
@pytest.mark.parametrize(("cls", "terms", "decoupled"), list(own_decays()))
def test_it_is_the_optimizers_own_decay(cls, terms, decoupled):
    mine, own = two_alike((4, 3), (3, 5))
    theirs = cls(own, **terms)
    ours = cls(mine, **{**terms, "weight_decay": 0.0})
    nk.decay(ours, terms["weight_decay"], kind="decoupled" if decoupled else "l2")
    stepped(ours, theirs, mine, own)
    for a, b in zip(mine, own, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_torchs_list_has_many_configurations():
    flags = [case.values[2] for case in own_decays()]
    assert sum(flags) >= 8
    assert len(flags) - sum(flags) >= 20


def test_adamw_is_not_adam_with_l2():
    mine, own = two_alike((4, 3))
    ours, theirs = torch.optim.Adam(mine, lr=0.05), torch.optim.AdamW(own, lr=0.05, weight_decay=1.0)
    nk.decay(ours, 1.0, kind="l2")
    stepped(ours, theirs, mine, own, steps=40)
    assert (mine[0] - own[0]).abs().max() > 0.1


# -- closures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_finds_the_minimum_of_loss_and_penalty(search):
    goal = torch.tensor([[1.0, -2.0], [3.0, 0.5]], dtype=torch.float64)
    w = nn.Parameter(torch.zeros_like(goal))
    optimizer = torch.optim.LBFGS([w], lr=0.5, max_iter=30, line_search_fn=search)
    nk.decay(optimizer, 3.0, kind="l2")

    def closure():
        optimizer.zero_grad(set_to_none=search is None)
        loss = ((w - goal) ** 2).sum() / 2
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert first.item() == pytest.approx((goal**2).sum().item() / 2)
    optimizer.step(closure)
    torch.testing.assert_close(w.detach(), goal / 4, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(w.grad, w.detach() - goal, rtol=1e-5, atol=1e-5)  # the loss's own


def test_lbfgs_decoupled_takes_its_share_of_the_weight_before_the_step():
    start = torch.tensor([[1.0, -2.0], [3.0, 0.5]], dtype=torch.float64)
    results = []
    for decays in (True, False):
        w = nn.Parameter(start.clone())
        optimizer = torch.optim.LBFGS([w], lr=0.5, max_iter=4)
        if decays:
            nk.decay(optimizer, 0.25)

        def closure(w=w, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (w**4).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        results.append(w.detach())
    torch.testing.assert_close(results[0], results[1] - 0.5 * 0.25 * start, rtol=1e-12, atol=1e-12)


def test_a_closure_without_result_is_one_too():
    w = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.SGD([w], lr=0.5)
    nk.decay(optimizer, 0.5, kind="l2")

    def closure():
        w.grad = torch.zeros_like(w)

    assert optimizer.step(closure) is None
    assert torch.equal(w.detach(), torch.full((2, 2), 0.75))


# -- fused kernels, gradient scalers -------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("kind", ["l2", "decoupled", "cautious", "toward"])
def test_with_a_gradient_scaler(kind, unscaled, fused):
    """The same as without one; and a step that it skips changes nothing and is no step of a schedule."""
    more = {"reference": {"fc.weight": torch.ones(3, 4)}} if kind == "toward" else {}
    results = []
    for scaled in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential()
        model.fc = nn.Linear(4, 3)
        optimizer = torch.optim.Adam(model.named_parameters(), lr=0.1, fused=fused)
        handle = nk.decay(optimizer, 0.5, kind=kind, schedule=lambda step: 1 / (1 + step), **more)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        for step in range(5):
            x = torch.full((2, 4), float(step + 1))
            if step == 2:
                if not scaled:
                    continue
                x = x * torch.inf
            before = model.fc.weight.detach().clone()
            optimizer.zero_grad()
            scaler.scale((model.fc(x) ** 2).mean()).backward()
            if unscaled and scaled:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update(1024.0 if scaled else None)
            assert torch.equal(before, model.fc.weight) == (step == 2)
        assert handle.steps == 4
        results.append(model.fc.weight.detach())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


# -- compiled ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["l2", "decoupled", "cautious"])
def test_a_compiled_step_decays_as_any_other(kind):
    torch._dynamo.reset()
    mine, own = two_alike((4, 3), (3, 5))
    optimizers = [torch.optim.Adam(params, lr=torch.tensor(0.01)) for params in (mine, own)]
    handles = [nk.decay(each, 0.5, kind=kind, schedule=lambda step: 1 / (1 + step)) for each in optimizers]
    compiled = torch.compile(optimizers[0].step, backend="eager")
    torch.manual_seed(1)
    for step in range(4):
        for a, b in zip(mine, own, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for each in optimizers:
            each.param_groups[0]["lr"].fill_(0.01 * (step + 1))
        compiled()
        optimizers[1].step()
        for a, b in zip(mine, own, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # compiled, Adam counts its steps in float32
    assert [handle.steps for handle in handles] == [4, 4]


# -- gradients that are not there, or sparse -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["l2", "decoupled", "cautious"])
def test_a_parameter_without_gradient_is_left_alone(kind):
    mine, _ = two_alike((4, 3), (3, 5))
    optimizer = torch.optim.SGD(mine, lr=0.1)
    handle = nk.decay(optimizer, 0.5, kind=kind)
    before = mine[1].detach().clone()
    for closure in (None, lambda: torch.zeros(())):
        mine[0].grad = torch.ones_like(mine[0])
        optimizer.step(closure)
        assert torch.equal(mine[1], before)
        assert mine[1].grad is None
    assert handle.steps == 2


def test_a_sparse_gradient_with_l2_is_refused():
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ModelError, match="weight has a sparse gradient, and kind='l2' would add the whole weight"):
        nk.decay(optimizer, 0.1, kind="l2", select="embedding", model=model)
    optimizer.register_step_post_hook(lambda *_: None)
    handle = nk.decay(optimizer, 0.1, kind="l2", select="all")  # only the gradient shows it
    model(torch.tensor([1])).sum().backward()
    before = model.weight.detach().clone()
    with pytest.raises(ModelError, match="has a sparse gradient"):
        optimizer.step()
    assert torch.equal(model.weight, before)
    handle.remove()
    nk.decay(optimizer, 0.5, select="embedding", model=model)
    optimizer.step()
    torch.testing.assert_close(model.weight[0].detach(), before[0] * 0.95)  # the whole weight


def test_a_step_that_fails_leaves_the_gradients_to_the_next():
    w = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.SGD([w], lr=0.5)
    nk.decay(optimizer, 0.5, kind="l2")

    def fails(*_):
        raise RuntimeError("not now")

    w.grad = torch.ones(2, 2)
    hook = optimizer.register_step_pre_hook(fails)
    with pytest.raises(RuntimeError, match="not now"):
        optimizer.step()
    hook.remove()
    optimizer.step()
    assert torch.equal(w.detach(), torch.full((2, 2), 0.25))
    assert torch.equal(w.grad, torch.ones(2, 2))
