// The theme looks for the list of headings wherever something stands in the margin or is wide,
// and stops with an error on a page that has no such list.
document.addEventListener("DOMContentLoaded", () => {
  if (!document.querySelector("div.bd-sidebar-secondary")) {
    const standIn = document.createElement("div");
    standIn.className = "bd-sidebar-secondary";
    standIn.hidden = true;
    document.body.append(standIn);
  }
});

// What scrolls sideways can be reached and scrolled with the keyboard.
function markScrollable() {
  const wide = ".cell_output, figure, .math, mjx-container[display], p, dd, .pst-scrollable-table-container, pre";
  for (const box of document.querySelectorAll(".bd-article :is(" + wide + ")")) {
    const scrolls = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("pq-scroll", scrolls);
    if (scrolls) {
      box.tabIndex = 0;
    } else if (box.tabIndex === 0) {
      box.removeAttribute("tabindex");
    }
  }
}
window.addEventListener("load", () => {
  markScrollable();
  if (window.MathJax?.startup?.promise) {
    window.MathJax.startup.promise.then(markScrollable);
  }
});
window.addEventListener("resize", markScrollable);
