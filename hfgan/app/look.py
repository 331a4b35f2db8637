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
#edit-sliders > .form { display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr));
  background: var(--block-background-fill); }
#edit-sliders > .form:not(:has(input)) { display: none; }
.beside { align-items: end; }
#edit-exports { display: grid; grid-template-columns: repeat(5, 1fr); }
#film-video { max-width: 320px; }
@media (min-width: 641px) { :is(#mixed, #animation) .empty { aspect-ratio: 1; } }

/* where the keyboard is, in light and dark; what it reaches is large enough for a finger */
:is(a, button, input, textarea, summary, [tabindex]):focus-visible {
  outline: 2px solid var(--body-text-color) !important; outline-offset: 2px; }
:is(.thumbnail-item, [role="tab"], .upload button, .label-wrap):focus-visible { outline-offset: -3px; }
input[type="range"] { height: 24px; margin-block: -8px; }
input[type="range"]:focus-visible { outline-offset: -2px; }
:is(.icon-button, .upload .icon, .reset-button, .toast-close, .recipe :is(.toggle, .preview),
  .icon-mode, #paint :is(button, [role="button"])) { min-width: 24px; min-height: 24px; }
:is(.label-wrap, .settings, .show-api, input[type="number"], .checkbox-container) { min-height: 24px; }
.prose .token { color: inherit !important; }
.dark input.subdued { color: var(--neutral-300) !important; }
.dark :is(.prose a, .download-link) { color: var(--neutral-300); }
.prose :is(pre, pre code) { white-space: pre-wrap !important; overflow-wrap: anywhere; overflow-x: hidden; }

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
  #edit-sources > :first-child { flex: 1 1 100%; }
  footer .divider { display: none; }
}
"""

# What Gradio leaves out, put in as it draws: names and states for screen readers, and arrow keys between tabs, of
# which Tab reaches the one that is open.
SCRIPT = """() => {
  const LINES = ["line", "a-caption", "b-caption", "mixed-caption", "interest-caption", "inverted-line", "edit-line",
                 "find-line", "browse-line", "film-line", "guess-told", "guess-progress", "attribute-line"];
  const each = (selector, change) => document.querySelectorAll(selector).forEach(change);
  const set = (one, name, value) => one.getAttribute(name) === String(value) || one.setAttribute(name, value);
  const tabs = () => [...document.querySelectorAll("#tabs [role=tab]")].filter((tab) => tab.offsetParent);
  let waits = false;
  function tidy() {
    waits = false;
    each(".empty[aria-label]", (one) => set(one, "role", "img"));
    each(".picture .image-container > button", (one) => set(one, "tabindex", -1));  // does nothing
    each(".toast-header", (one) => ["role", "tabindex"].forEach((name) => one.removeAttribute(name)));
    each("[aria-label='common.upload']", (one) => ["aria-label", "title"].forEach((name) => set(one, name, "Upload")));
    each("fieldset:has(> [data-testid=block-info])", (one) =>
      set(one, "aria-label", one.querySelector("[data-testid=block-info]").innerText.trim()));
    each("#tabs [role=tab]", (one) => set(one, "tabindex", one.getAttribute("aria-selected") === "true" ? 0 : -1));
    each(".thumbnail-item", (one) => {
      const said = one.querySelector(".caption-label")?.innerText.trim();
      if (said) set(one, "aria-label", said);
      set(one, "aria-pressed", one.classList.contains("selected"));
    });
    LINES.forEach((id) => document.getElementById(id) && set(document.getElementById(id), "aria-live", "polite"));
  }
  const soon = () => { waits ||= requestAnimationFrame(tidy); };
  new MutationObserver(soon).observe(document.body, {childList: true, subtree: true, characterData: true,
    attributes: true, attributeFilter: ["class", "aria-selected", "aria-label"]});
  document.addEventListener("keydown", (event) => {
    if (event.target.getAttribute("role") !== "tab" || event.ctrlKey || event.altKey || event.metaKey) return;
    const all = tabs(), last = all.length - 1, at = all.indexOf(event.target);
    const to = {ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    all[to].focus();
  });
  soon();
}"""

HOME = """() => setTimeout(() => {
  const seen = (what) => [...document.querySelectorAll(`#tabs [role=${what}]`)].filter((one) => one.offsetParent);
  if (!seen("tabpanel").length) seen("tab")[0]?.click();
}, 100) && []"""  # the tab that was open may have gone with the model that it was for


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
