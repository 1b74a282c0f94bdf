/* Before anything is painted: the colours that were chosen last, or those of the system. */
(function () {
  var chosen = null;
  try { chosen = localStorage.getItem("rllc-theme"); } catch (error) { /* a page opened from a file may have no storage */ }
  var dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : dark ? "dark" : "light";
  document.documentElement.classList.add("scripted");
})();
