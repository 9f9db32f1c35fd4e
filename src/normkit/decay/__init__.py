"""What is taken from a weight in a step, whatever the loss says: (w, rate) -> w.

`kinds.py` the kinds of decay by name and the share of a weight that each takes; `shrink.py` the weight without it;
`convert.py` the same decay in the units of another library; `solve.py` the number for a wish.
"""

from normkit.decay.convert import CONVENTIONS, Convention, convert_decay
from normkit.decay.kinds import KINDS, Kind, checked_kind, refuse_divergent, share
from normkit.decay.shrink import coupled, decayed
from normkit.decay.solve import solve_decay

__all__ = [
    "CONVENTIONS",
    "KINDS",
    "Convention",
    "Kind",
    "checked_kind",
    "convert_decay",
    "coupled",
    "decayed",
    "refuse_divergent",
    "share",
    "solve_decay",
]
