"""The page's style: system fonts, one accent colour, light and dark.

Gradio titles each message of an error "Error", whatever title it is given, so the style writes the title.
"""

from __future__ import annotations

from typing import Any

STYLE = """
.gradio-container { max-width: 1280px !important; width: 100% !important; margin: 0 auto !important; }
.gradio-container > main, .gradio-container .wrap > .contain { width: 100% !important; }
#head h1 { margin: 0 0 .1rem; font-size: 1.5rem; }
#head p { margin: 0; opacity: .75; }
.plan p { margin: .1rem 0; }
.plan table { display: block; overflow-x: auto; font-size: .85rem; max-width: 100%; }
.plan table { border: none !important; padding: 0 !important; }
.plan td:first-child { white-space: nowrap; }
.plan th, .plan td { padding: .15rem .35rem !important; }
.plan th, .plan td { overflow-wrap: normal !important; word-break: normal !important; }
.note p { margin: .2rem 0; }
.below-label .grid-wrap { padding-top: 2.2rem; height: auto !important; max-height: none !important; }
.below-label .grid-wrap { min-height: 6rem; }
.below-label .grid-container { grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)) !important; }
.below-label .grid-container { height: auto !important; }
.below-label.large .grid-container { grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)) !important; }
.below-label .caption-label { white-space: normal !important; text-align: right; line-height: 1.25; }
.base-samples img { image-rendering: pixelated; }
.toast-title.error { font-size: 0 !important; }
.toast-title.error::before { content: "Not done"; font-size: 1rem; }
.toast-title.error > * { font-size: .85rem; margin-left: .3rem; }
button.lg { font-size: 1rem !important; font-weight: 600; }
@media (max-width: 640px) {
  .gradio-container { padding: 8px !important; }
  #head h1 { font-size: 1.25rem; }
  button.lg { font-size: .8rem !important; padding-left: .2rem !important; padding-right: .2rem !important; }
  .plan table { font-size: .75rem; }
  .plan th, .plan td { padding: .15rem .25rem !important; }
  .below-label.large .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
}
"""


def theme() -> Any:
    """Gradio's plain theme without fonts from other servers."""
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
