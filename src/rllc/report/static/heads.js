/* Choosing heads: the same choice everywhere on the page. None chosen means all. */
const sameSet = (a, b) => a.size === b.size && [...a].every((item) => b.has(item));

function toggleHead(head) {
  if (state.heads.has(head)) state.heads.delete(head); else state.heads.add(head);
  changed();
}

document.querySelectorAll(".chooser").forEach((box) => {
  const buttons = [];
  const button = (text, heads, style) => {
    const node = make("button", { type: "button", textContent: text, className: style || "" });
    node.addEventListener("click", () => {
      if (heads.length === 1) return toggleHead(heads[0]);
      state.heads = sameSet(state.heads, new Set(heads)) ? new Set() : new Set(heads);
      return changed();
    });
    buttons.push([node, heads]);
    return node;
  };
  const layers = new Map();
  for (const head of setup.heads) {
    const layer = head.name.split(":")[0];
    if (!layers.has(layer)) layers.set(layer, make("div", { className: "row" }, make("span", { textContent: `Layer ${layer}` })));
    const node = button(head.name, [head.name]);
    node.style.color = `var(--${head.style})`;
    node.title = head.type;
    layers.get(layer).append(node);
  }
  const kinds = make("div", { className: "row" }, make("span", { textContent: "Show" }), button("all", [], "wide"));
  for (const kind of setup.types.filter((type) => setup.heads.some((head) => head.type === type))) {
    const node = button(kind, setup.heads.filter((head) => head.type === kind).map((head) => head.name), "wide");
    node.style.color = `var(--${setup.heads.find((head) => head.type === kind).style})`;
    kinds.append(node);
  }
  box.append(kinds, ...layers.values());
  const show = () => buttons.forEach(([node, heads]) => {
    const on = heads.length === 1 && node.className !== "wide" ? state.heads.has(heads[0]) : sameSet(state.heads, new Set(heads));
    node.setAttribute("aria-pressed", String(on));
  });
  state.watchers.push(show);
  show();
});
