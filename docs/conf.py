"""How the pages are built: `make docs`."""

import importlib.util
import re

import normkit

project = "normkit"
author = "the normkit authors"
project_copyright = author
version = release = normkit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"normkit {release}"
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["normkit.css"]
myst_heading_anchors = 3
nitpicky = True

FRAMEWORKS = ("torch", "keras", "jax", "tensorflow", "lightning", "transformers")
# The pages describe every door, whichever frameworks stand on the machine that builds them.
autodoc_mock_imports = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_use_type_comments = False
add_module_names = False


def as_written(*event):
    """Docstrings are plain text: the first paragraph is set as such, the rest as it stands in the source."""
    lines = event[-1]
    summary, _, rest = "\n".join(lines).strip().partition("\n\n")
    lines[:] = re.sub(r"`([^`]+)`", r"``\1``", re.sub(r"([*|])", r"\\\1", summary)).splitlines()
    if rest:
        lines += ["", ".. code-block:: text", "", *(f"   {line}" for line in rest.splitlines()), ""]


def setup(app):
    app.connect("autodoc-process-docstring", as_written)
