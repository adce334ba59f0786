"""The documentation site: `make docs` builds it into build/site, with warnings as errors.

The source folder is the repository, so that the pages' links to each other are the same on the site and in a checkout.
"""

from __future__ import annotations

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import selfcascade

project = "selfcascade"
copyright = "the selfcascade authors, Apache-2.0"
version = release = selfcascade.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["docs/**", "benchmarks/*.md", "recipes/bundled/README.md", "CONTRIBUTING.md"]
include_patterns += ["CHANGELOG.md"]
exclude_patterns = [".*", "build", "dist", "outputs", "runs", "src", "tests", "integrations"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # the pages of results have sections two levels below their title

default_role = "py:obj"  # names in docstrings are in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "selfcascade"
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"


def _inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _display(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def _lead_in(app: Sphinx, failure: Exception | None) -> None:
    """The site's root redirects to the first page, which is in docs/ as in the repository."""
    if failure is None and app.builder.format == "html":
        target = f"{root_doc}.html"
        page = f'<!doctype html><meta charset="utf-8"><title>{project}</title>'
        page += f'<meta http-equiv="refresh" content="0; url={target}"><a href="{target}">{project}</a>\n'
        (app.outdir / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Formulas become MathML, which browsers show without scripts from other servers."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    app.connect("build-finished", _lead_in)
