"""What is taken from a weight in a step, whatever the loss says: (w, rate) -> w.

`kinds.py` the kinds of decay by name and the share of a weight that each takes; `shrink.py` the weight without it.
"""

from normkit.decay.kinds import KINDS, Kind, checked_kind, refuse_divergent, share
from normkit.decay.shrink import coupled, decayed

__all__ = ["KINDS", "Kind", "checked_kind", "coupled", "decayed", "refuse_divergent", "share"]
