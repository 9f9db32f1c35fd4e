"""`nk.constrain` and `nk.proximal` in a compiled step: the graph breaks at the hooks, which run as in any other."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk

pytestmark = [pytest.mark.usefixtures("one_thread")]

VERBS = {
    "max_norm": (nk.constrain, {"max_norm": 0.3}),
    "hold": (nk.constrain, {"hold": "initial"}),
    "proximal": (nk.proximal, {"l1": 0.3, "group": 0.01}),
}


def trained(verb, *, compiled):
    torch.compiler.reset()
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    call, options = VERBS[verb]
    call(optimizer, **options, model=model)
    step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().mean().backward()
        step()
    return model.weight.detach()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_step_does_what_any_other_does(verb):
    expected = trained(verb, compiled=False)
    torch.testing.assert_close(trained(verb, compiled=True), expected)
