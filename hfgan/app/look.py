"""How the page looks and what it says about itself."""

from __future__ import annotations

import gradio as gr

TITLE = "HFGan"
INTRODUCTION = """# HFGan
Every picture here is synthetic: a network drew it, and what it shows does not exist."""

CSS = """
.gradio-container { overflow: clip !important; }  /* hidden would keep what is sticky from sticking */
.gradio-container > .main { max-width: 1200px; }
#introduction h1 { margin-bottom: 0; }
#introduction p, #line p, .caption p { margin: 0; }
.block.caption { margin: -6px 0; padding: 0 !important; }
button[role="tab"][aria-selected="true"] { color: var(--body-text-color); font-weight: 600; }
#loaded { align-items: center; }
#bench { align-items: flex-start; }
#side { position: sticky; top: var(--spacing-lg); }
.tab-container button { padding: 0 10px; }
#line { flex: 1 1 280px; }
#line code { overflow-wrap: anywhere; }
.dark input[type="range"] { --neutral-200: var(--neutral-600); }

/* labels stand above pictures, not on them */
[data-testid="block-label"] { border: 0 !important; background: none !important; }
.picture .icon-button-wrapper { display: none; }
.picture .image-container, .upload .image-container { padding: 36px var(--spacing-md) var(--spacing-md); }
.picture .image-frame, .picture .image-frame img { width: 100%; aspect-ratio: 1; object-fit: contain; }
.picture .empty { min-height: 110px; padding-top: 36px; }
#side .empty, #edit-pictures .empty { aspect-ratio: 1; min-height: 0; }  /* nothing moves when a picture comes */
#gallery .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)); grid-auto-rows: auto; }
#gallery .grid-wrap { min-height: 0; max-height: none; padding: 36px var(--spacing-md) var(--spacing-md); }
#gallery .selected { outline: 3px solid var(--body-text-color); }
#gallery .caption-label { max-width: 100%; padding: 0 4px; border: 0; font-size: var(--text-xs); }
.below .empty { min-height: 110px; }
.below .grid-wrap { min-height: 0; max-height: none; padding: 36px var(--spacing-md) var(--spacing-md); }
.below .grid-container { grid-template: none / repeat(var(--grid-cols), minmax(0, 1fr)); grid-auto-rows: auto; }
.below .thumbnail-item { aspect-ratio: auto; height: auto; overflow: visible; border: 0; background: none;
  box-shadow: none; }
.below .thumbnail-item img { aspect-ratio: 1; height: auto; border-radius: var(--radius-sm); }
.below .caption-label { position: static; max-width: none; padding: 2px 0; border: 0; background: none;
  font-size: var(--text-xs); text-align: center; white-space: normal; text-wrap: balance; }
.below .thumbnail-item:hover .caption-label { opacity: 1; }
#compare-global .caption-label { min-height: calc(2lh + 4px); }
.whole .image-frame, .whole .image-frame img { aspect-ratio: auto; }
.whole .image-frame img { max-height: 640px; }
.checker img { background: repeating-conic-gradient(#999 0 25%, #ddd 0 50%) 0 0 / 16px 16px; }
#exports { display: grid; grid-template-columns: repeat(3, 1fr); }
#modes { flex: 1 1 100%; }
#modes .empty { min-height: 250px; }
#modes .grid-wrap { max-height: 285px; overflow-y: auto; }
#modes .grid-container, #edit-steps .grid-container, #find-grid .grid-container {
  grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); }
#modes .selected img, #edit-steps .selected img { outline: 3px solid var(--body-text-color); }
#modes .selected .caption-label, #edit-steps .selected .caption-label { font-weight: 600; }
#edit-sources { align-items: center; }
#edit-pictures { max-width: 640px; }  /* the sliders are seen at the same time */
#edit-sliders > .form { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr));
  background: var(--block-background-fill); }
#edit-sliders > .form:not(:has(input)) { display: none; }
.beside { align-items: end; }
#edit-exports { display: grid; grid-template-columns: repeat(5, 1fr); }
#film-video { max-width: 320px; }

/* what is marked stands out without its colour, too */
#find-grid .thumbnail-item:has(img[alt^="+"]), #find-grid .thumbnail-item:has(img[alt^="−"]) { position: relative; }
#find-grid .thumbnail-item:has(img[alt^="+"]) img { outline: 3px solid #1a7f37; }
#find-grid .thumbnail-item:has(img[alt^="−"]) img { outline: 3px dashed #c62828; }
#find-grid .thumbnail-item:has(img[alt^="+"])::after, #find-grid .thumbnail-item:has(img[alt^="−"])::after {
  position: absolute; top: 4px; left: 4px; width: 1.4em; border-radius: var(--radius-sm); color: #fff;
  font-weight: 600; line-height: 1.4; text-align: center; }
#find-grid .thumbnail-item:has(img[alt^="+"])::after { background: #1a7f37; content: "+"; }
#find-grid .thumbnail-item:has(img[alt^="−"])::after { background: #c62828; content: "−"; }
.recipe .block { border: 0; }
.recipe .line-number, .recipe .json-node.root::before { display: none; }
.recipe .json-node.root { padding-left: 0; }
.recipe .json-holder { font-size: var(--text-xs); }
.recipe .json-holder span { color: var(--body-text-color); }

/* on a phone the pictures come first */
@media (max-width: 640px) {
  #controls { order: 1; }
  #modes .grid-container { grid-template: repeat(2, auto) / none; grid-auto-flow: column; grid-auto-columns: 84px; }
  .way .grid-wrap { overflow-x: auto; }
  .way .grid-container { grid-template: auto / none; grid-auto-flow: column; grid-auto-columns: 84px; }
  #gallery .caption-label { display: none; }
  #compare-global .caption-label { min-height: 0; }
  #exports, #edit-exports { grid-template-columns: repeat(2, 1fr); }
  #edit-pictures { position: sticky; top: 0; z-index: 50; background: var(--body-background-fill); }
  .tab-container button { padding: 0 8px; }
  #side { position: static; flex-flow: row nowrap; }
}
"""


def theme() -> gr.themes.Base:
    """Monochrome, whose text has enough contrast in light and dark."""
    sans = ("ui-sans-serif", "system-ui", "sans-serif")
    plain = gr.themes.Monochrome(spacing_size="md", radius_size="sm", font=sans)
    return plain.set(  # what one can press, and what is chosen, stands out in the dark, too
        button_secondary_text_color_hover="*neutral_900",
        slider_color_dark="*neutral_100",
        button_primary_background_fill_dark="*neutral_100",
        button_primary_background_fill_hover_dark="*neutral_300",
        button_primary_text_color_dark="*neutral_900",
        checkbox_border_color_dark="*neutral_400",
        checkbox_label_background_fill_selected_dark="*neutral_100",
        checkbox_label_text_color_selected_dark="*neutral_900",
    )
