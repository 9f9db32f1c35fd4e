"""What every Python process below `normkit run` does as it starts: watch for torch, and leave no other trace.

This folder stands first on the PYTHONPATH of those processes, whatever Python they are; so this file keeps to old
syntax, imports nothing that takes time, and hands over to the `sitecustomize` that it stands in front of.
"""

import os
import sys

_folder = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [folder for folder in sys.path if folder != _folder]

try:
    from normkit.cli.below import watch
except Exception:  # another Python, without normkit or too old for it: it is not recorded
    pass
else:
    watch()

_ours = sys.modules.pop(__name__)
try:
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401  # the one behind this one
except ImportError:
    if "sitecustomize" in sys.modules or getattr(sys.exc_info()[1], "name", None) != "sitecustomize":
        raise
    sys.modules[__name__] = _ours  # there is none
