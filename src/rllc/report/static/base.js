/* What the other scripts share: embedded values, the theme, the chosen heads. */
const read = (id) => { const node = document.getElementById(id); return node ? JSON.parse(node.textContent) : null; };
const make = (name, properties, ...content) => {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...content);
  return node;
};
const state = { heads: new Set(), printing: false, watchers: [] };
const changed = () => state.watchers.forEach((watch) => watch());
const root = document.documentElement;
const theme = () => (state.printing ? "light" : root.dataset.theme);
const css = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
const setup = read("setup");

(function chooseTheme() {
  const button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const order = ["auto", "light", "dark"];
  let chosen = "auto";
  try { chosen = localStorage.getItem("rllc-theme") || "auto"; } catch (error) { /* no storage: the choice lasts as long as the page */ }
  const apply = () => {
    root.dataset.theme = chosen === "auto" ? (system.matches ? "dark" : "light") : chosen;
    button.textContent = `Colours: ${chosen}`;
    button.setAttribute("aria-label", `Colours: ${chosen === "auto" ? "as the system says" : chosen}. Press to change.`);
    changed();
  };
  button.addEventListener("click", () => {
    chosen = order[(order.indexOf(chosen) + 1) % order.length];
    if (chosen === (system.matches ? "dark" : "light")) chosen = order[(order.indexOf(chosen) + 1) % order.length];
    try { localStorage.setItem("rllc-theme", chosen); } catch (error) { /* as above */ }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
})();

(function markContents() {
  const links = new Map([...document.querySelectorAll(".toc a")].map((a) => [a.hash.slice(1), a]));
  const mark = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      for (const a of links.values()) a.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  document.querySelectorAll("main section[id]").forEach((section) => mark.observe(section));
})();
