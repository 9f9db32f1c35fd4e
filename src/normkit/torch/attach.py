"""A verb at work inside an optimizer: the hooks around each step, and its numbers in the optimizer's state dict.

Which tensors it acts on stands in `aim.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor

from normkit.errors import StateError
from normkit.torch.aim import Aim, aim, optimizer_of
from normkit.torch.arguments import joined
from normkit.torch.describe import untraced

KEY = "normkit"  # in the optimizer's state dict, beside "state" and "param_groups"; plain torch ignores it
_FORM = attrgetter("requires_grad", "dtype", "device", "__class__")  # a lazy one that becomes real changes its class


class Attachment:
    """A verb's hooks on one optimizer, from `attach` to `remove`; the handle that the user holds is a subclass.

    Subclasses say what is done in `before` and `after`, and which numbers are saved in `saved` and `load`. At the first
    step after the optimizer's lists have changed (`add_param_group`, weight norm put on or taken off, a parameter
    frozen or freed), `found` is called with the new aim. A compiled training step runs the hooks outside its graphs.
    Around a step foreign hooks, such as a recorder's, see the
    weights before and after: ours are the last before it and the first after it, in the order in which they were made.

    A copy of the optimizer (deepcopy, pickle) has no hooks: torch leaves them behind. Call the verb on the copy.
    """

    VERB = ""

    def __init__(self, optimizer: Any, rule: Any, model: Any, *, default: str = "kernel") -> None:
        self.optimizer = optimizer_of(optimizer, self.VERB)
        self._model = None if model is None else joined(model)
        self._rule, self._default = rule, default
        self._handles: list[Any] = []
        self._put_in: Callable[[], None] = _nothing
        self.aim = aim(self.optimizer, rule, model=self._model, default=default, verb=self.VERB)
        self._remember()

    # -- what a verb says of itself --------------------------------------------------------------------------------

    def found(self, now: Aim) -> None:
        """The aim is another one."""

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Just before a step; may return other (args, kwargs) for it."""

    def after(self) -> None:
        """Just after it."""

    def saved(self) -> dict[str, Any]:
        """Plain numbers and tensors for the optimizer's state dict."""
        return {}

    def check(self, saved: Mapping[str, Any]) -> Callable[[], None]:
        """Look through what a state dict has; give back what loads it. Raises: StateError for what does not fit."""
        return _nothing

    # -- hooks -----------------------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Put the hooks on; called last, once nothing can be refused any more."""
        on = self.optimizer
        pre, post = on.register_step_pre_hook(self._before), on.register_step_post_hook(self._after)
        _ours_first(on._optimizer_step_post_hooks)
        self._handles = [
            pre,
            post,
            on.register_state_dict_post_hook(self._save),
            on.register_load_state_dict_pre_hook(self._look_through),
            on.register_load_state_dict_post_hook(self._load),
        ]

    def remove(self) -> None:
        """Take the hooks off the optimizer; what has been done to the weights stays. A second call does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def attached(self) -> bool:
        return bool(self._handles)

    @untraced
    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.refresh()
        return self.before(args, kwargs)

    @untraced
    def _after(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.after()

    # -- what there is at a step -----------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look again at the optimizer's parameters, where they are not those of the last look."""
        if self._changed():
            now = aim(self.optimizer, self._rule, model=self._model, default=self._default, verb=self.VERB, again=True)
            self.found(now)
            self.aim = now
            self._remember()

    def _remember(self) -> None:
        self._lists = [list(group["params"]) for group in self.optimizer.param_groups]
        self._forms = [list(map(_FORM, held)) for held in self._lists]

    def _changed(self) -> bool:
        groups = self.optimizer.param_groups
        if len(groups) != len(self._lists):
            return True
        for group, known, forms in zip(groups, self._lists, self._forms, strict=True):
            held = group["params"]
            if len(held) != len(known) or not all(map(is_, held, known)) or list(map(_FORM, held)) != forms:
                return True
        return False

    def rates(self) -> list[Any]:
        """The learning rate of each group now: a Python number, or a tensor."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def alive(self) -> Any:
        """1.0 for a step that is made; 0.0, or a tensor on the device, for one that a gradient scaler skips.

        Without `fused` a skipped step is not called at all. With it, the optimizer's kernel asks `found_inf` on the
        device; on the CPU it is read here, elsewhere reading would wait.
        """
        found = getattr(self.optimizer, "found_inf", None)
        if not isinstance(found, Tensor):
            return 1.0
        return 1.0 - found.item() if found.device.type == "cpu" else 1.0 - found

    # -- the optimizer's state dict --------------------------------------------------------------------------------

    def _slot(self) -> str:
        """Which of the optimizer's attachments of this verb it is: a fresh one of the same order takes it up."""
        same = [one for one in attached_to(self.optimizer) if one.VERB == self.VERB]
        return f"{self.VERB}.{next(i for i, one in enumerate(same) if one is self)}"

    def _save(self, optimizer: Any, state_dict: dict[str, Any]) -> None:
        state_dict[KEY] = {**state_dict.get(KEY, {}), self._slot(): self.saved()}

    def _look_through(self, optimizer: Any, state_dict: dict[str, Any]) -> None:
        mine = state_dict.get(KEY, {}).get(self._slot())
        if mine is not None and not isinstance(mine, Mapping):
            raise StateError(f"the state dict's {KEY}.{self._slot()} is {type(mine).__name__}; expected a dict")
        self._put_in = _nothing if mine is None else self.check(mine)

    def _load(self, optimizer: Any) -> None:
        """Once torch itself has refused nothing."""
        put_in, self._put_in = self._put_in, _nothing
        put_in()


def _nothing() -> None:
    """What a state dict without these numbers changes."""


def attached_to(optimizer: torch.optim.Optimizer) -> list[Attachment]:
    """The verbs at work in `optimizer`, in the order in which they were made."""
    owners = (_owner(hook) for hook in optimizer._optimizer_step_pre_hooks.values())
    return [owner for owner in owners if owner is not None]


def _owner(hook: Any) -> Attachment | None:
    owner = getattr(hook, "__self__", None)
    return owner if isinstance(owner, Attachment) else None


def _ours_first(hooks: Any) -> None:
    for number in [number for number, hook in hooks.items() if _owner(hook) is None]:
        hooks.move_to_end(number)


def closure_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[[], Any] | None:
    """The closure that a step was given; `args` starts with the optimizer itself."""
    found: Callable[[], Any] | None = kwargs.get("closure", args[1] if len(args) > 1 else None)
    return found


def with_closure(args: tuple[Any, ...], kwargs: dict[str, Any], closure: Callable[[], Any]) -> tuple[Any, Any]:
    """The same arguments with another closure, as a pre-hook gives them back."""
    if "closure" in kwargs:
        return args, {**kwargs, "closure": closure}
    return (args[0], closure, *args[2:]), kwargs
