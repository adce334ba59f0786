"""How the page looks: fonts of the visitor's own system, one accent, light and dark."""

from __future__ import annotations

from typing import Any

STYLE = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
#head h1 { margin: 0 0 .1rem; font-size: 1.5rem; }
#head p { margin: 0; opacity: .75; }
.plan p { margin: .1rem 0; }
.plan table { font-size: .85rem; width: 100%; }
.plan th, .plan td { padding: .15rem .35rem !important; }
.plan th, .plan td { overflow-wrap: normal !important; word-break: normal !important; }
.below-label .grid-container { grid-template-columns: repeat(var(--grid-cols), minmax(0, 1fr)); }
.note p { margin: .2rem 0; }
.below-label .grid-wrap { padding-top: 2.2rem; max-height: none; }
.base-samples img { image-rendering: pixelated; }
button.lg { font-size: 1rem !important; font-weight: 600; }
@media (max-width: 640px) {
  .gradio-container { padding: 8px !important; }
  #head h1 { font-size: 1.25rem; }
  .tab-container button { padding: 0 .6rem !important; }
}
"""


def theme() -> Any:
    """Gradio's plain theme without a font from elsewhere."""
    import gradio as gr

    sans = [
        "ui-sans-serif",
        "system-ui",
        "-apple-system",
        "Segoe UI",
        "Roboto",
        "Helvetica Neue",
        "Arial",
        "sans-serif",
    ]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    return gr.themes.Default(primary_hue="teal", neutral_hue="zinc", radius_size="sm", font=sans, font_mono=mono)
