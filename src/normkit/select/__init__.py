"""Which parameters a verb touches: one small language of roles, names, layer classes and callables."""

from normkit.select.selection import FOLD_ABOVE, Explanation, Selection, select

__all__ = ["FOLD_ABOVE", "Explanation", "Selection", "select"]
