"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import rllc

project = "rllc"
author = "the rllc developers"
copyright = "2026, the rllc developers"
version = release = rllc.__version__

extensions = ["myst_nb", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
nb_execution_mode = "off"  # notebooks keep their outputs; `make notebooks` makes them anew
html_theme = "furo"
html_title = "rllc"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# One page a room, from the docstrings; written anew at every build and not kept.
apidoc_modules = [
    {
        "path": "../src/rllc",
        "destination": "api/generated",
        "separate_modules": False,
        "automodule_options": {"members", "show-inheritance"},
    }
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"ArrayLike": "numpy.typing.ArrayLike"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # rooms may use one word for a thing each has of its own: Evaluation, Point, Trial
default_role = "literal"  # the docstrings' `names` and `formulas`
nitpicky = False


# Formulas as MathML, which browsers draw by themselves: the pages need no network.
html_math_renderer = "mathml"


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div style="margin: 1em 0">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
