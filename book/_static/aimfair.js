// What a reader who uses the keyboard or a screen reader needs and the theme does not give.
(() => {
  const SCROLLS = ".output.text_html, .output pre, .highlight pre, .pst-scrollable-table-container, mjx-container";

  // What scrolls sideways takes the focus, so that the arrow keys move it.
  function reachable() {
    for (const box of document.querySelectorAll(`article :is(${SCROLLS})`)) {
      const scrolls = box.scrollWidth > box.clientWidth + 1;
      if (scrolls) box.tabIndex = 0;
      else if (box.getAttribute("tabindex") === "0") box.removeAttribute("tabindex");
    }
  }

  // docutils makes a list of entries that are no list items.
  document.addEventListener("DOMContentLoaded", () => {
    for (const list of document.querySelectorAll(".citation-list[role=list]")) list.removeAttribute("role");
    reachable();
  });
  window.addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(reachable));
  window.addEventListener("resize", reachable);
})();
