/* Figures: drawn when they come near, laid out for the width at hand, in the colours of the theme, with the chosen heads in front. */
const figures = read("figures") || {};
const dark = setup.dark;
const triples = Object.fromEntries(Object.entries(dark).map(([from, to]) => [
  [1, 3, 5].map((i) => parseInt(from.slice(i, i + 2), 16)).join(","), [1, 3, 5].map((i) => parseInt(to.slice(i, i + 2), 16)).join(","),
]));

function recolor(value, key) {
  if (key === "customdata" || key === "hovertemplate" || key === "bdata") return value;
  if (typeof value === "string") {
    return value
      .replace(/#[0-9a-f]{6}\b/gi, (hex) => dark[hex.toLowerCase()] || hex)
      .replace(/rgba\((\d+,\d+,\d+),/g, (whole, triple) => (triple in triples ? `rgba(${triples[triple]},` : whole));
  }
  if (Array.isArray(value)) return value.map((item) => recolor(item, key));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, recolor(v, k)]));
  return value;
}

/* How many lines a legend across the top takes: 50 pixels for the line and its gap, about 7 a letter. */
function legendRows(traces, width) {
  const entries = traces.filter((t) => t.name && t.showlegend !== false && !(t.type || "").startsWith("heat"));
  if (entries.length < 2) return 1;
  const widest = Math.max(...entries.map((t) => 50 + 7.4 * t.name.length));
  return Math.ceil(entries.length / Math.max(1, Math.floor(width / widest)));
}

/* The first and the last label stay; those between them only where there is room for 32 pixels each. */
function thinTicks(axis, pixels) {
  if (!axis.tickvals || !axis.range || axis.tickvals.length < 3) return;
  const scale = pixels / Math.abs(axis.range[1] - axis.range[0]);
  const order = [0, axis.tickvals.length - 1, ...axis.tickvals.keys()];
  const kept = [];
  for (const i of order) if (kept.every((j) => Math.abs(axis.tickvals[i] - axis.tickvals[j]) * scale >= 32)) kept.push(i);
  kept.sort((a, b) => a - b);
  [axis.tickvals, axis.ticktext] = [kept.map((i) => axis.tickvals[i]), kept.map((i) => axis.ticktext[i])];
}

const axisName = (letter, i) => `${letter}axis${i ? i + 1 : ""}`;

/* The same panels in as many columns as the width has room for: sizes in pixels come from the figure's own meta. */
function arrange(layout, shown, width) {
  const grid = layout.meta && layout.meta.grid;
  if (!grid) return;
  const columns = width < 640 ? grid.narrow : grid.columns;
  const narrow = width < 640;
  const [left, right, top, bottom] = grid.margin.map((m, i) => (i === 2 ? m + 22 * (legendRows(shown, width) - 1) : narrow && i < 2 && m < 100 ? Math.round(m * 0.78) : m));
  layout.margin = { ...layout.margin, l: left, r: right, t: top, b: bottom };
  const gap = [narrow && columns > 1 ? Math.min(grid.gap[0], 22) : grid.gap[0], grid.gap[1]];
  const rows = Math.ceil(grid.panels / columns);
  const inner = [Math.max(60, width - left - right), rows * grid.row + (rows - 1) * gap[1]];
  const panel = (inner[0] - (columns - 1) * gap[0]) / columns;
  const title = (text, standoff) => (text ? { text, standoff, font: { size: 12, color: setup.muted } } : undefined);
  for (let i = 0; i < grid.panels; i += 1) {
    const row = Math.floor(i / columns), column = i % columns;
    const x = layout[axisName("x", i)], y = layout[axisName("y", i)];
    const x0 = column * (panel + gap[0]), y1 = inner[1] - row * (grid.row + gap[1]);
    x.domain = [x0 / inner[0], Math.min(1, (x0 + panel) / inner[0])];
    y.domain = [Math.max(0, (y1 - grid.row) / inner[1]), Math.min(1, y1 / inner[1])];
    if (grid.panels > 1) {
      const last = i + columns >= grid.panels;
      x.showticklabels = last || Boolean(grid.every_x);
      x.title = last ? title(panel < 280 ? grid.x_title.split(" (")[0] : grid.x_title, 10) : undefined;
      y.showticklabels = column === 0 || !grid.share_y;
      y.title = column === 0 ? title(grid.y_title, 8) : undefined;
    }
  }
  for (const note of layout.annotations || []) if (narrow && note.name === "stage") note.text = note.text.replace(/^\D+/, "");
  for (let i = 0; i < grid.panels; i += 1) thinTicks(layout[axisName("x", i)], panel);
  for (const trace of shown) if (trace.textfont && panel / trace.x.length < 30) {
    trace.textfont = { ...trace.textfont, size: 7.5 };
    for (let i = 0; i < grid.panels; i += 1) layout[axisName("x", i)].nticks = 7;
  }
  layout.height = inner[1] + top + bottom;
  layout.width = width;
}

function emphasise(figure) {
  if (!state.heads.size) return;
  for (const trace of figure.data) {
    if (trace.meta && trace.meta.head && !state.heads.has(trace.meta.head)) trace.opacity = trace.fill ? 0.15 : 0.13;
  }
  for (const note of figure.layout.annotations || []) {
    if (note.name && note.name.startsWith("head ") && !state.heads.has(note.name.slice(5))) note.opacity = 0.25;
  }
}

const drawn = new Set();

function draw(node) {
  const source = figures[node.dataset.figure];
  const width = state.printing ? (node.closest(".pair") ? 330 : 680) : Math.floor(node.parentElement.clientWidth);
  if (!source || !width) return undefined;
  const figure = { data: structuredClone(source.data), layout: structuredClone(source.layout) };
  emphasise(figure);
  arrange(figure.layout, figure.data, width);
  figure.layout.width = width;
  const touch = window.matchMedia("(pointer: coarse)").matches || width < 640;
  figure.layout.dragmode = touch ? false : "zoom";
  const shown = theme() === "dark" ? recolor(figure) : figure;
  const config = {
    displaylogo: false, responsive: false, showSendToCloud: false, plotlyServerURL: "", displayModeBar: touch ? false : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg", filename: `rllc-${node.dataset.figure}` },
  };
  const first = !drawn.has(node);
  drawn.add(node);
  const done = Plotly.react(node, shown.data, shown.layout, config);
  if (first) {
    node.on("plotly_click", (event) => {
      const head = event.points[0] && event.points[0].data.meta && event.points[0].data.meta.head;
      if (head) toggleHead(head);
    });
  }
  return done;
}

const nodes = [...document.querySelectorAll("[data-figure]")];
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "500px 0px" });
nodes.forEach((node) => near.observe(node));
const redraw = () => drawn.forEach((node) => draw(node));
state.watchers.push(redraw);

let lastWidth = window.innerWidth, waiting = 0;
window.addEventListener("resize", () => {
  if (window.innerWidth === lastWidth) return; // a phone's address bar changes the height alone
  lastWidth = window.innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(changed, 150);
});

function printing(on) {
  if (state.printing === on) return;
  state.printing = on;
  if (on) {
    document.querySelectorAll("details:not([open])").forEach((node) => { node.open = true; node.dataset.opened = ""; });
    root.dataset.before = root.dataset.theme;
    root.dataset.theme = "light";
    nodes.forEach((node) => { if (node.offsetParent !== null) draw(node); });
  } else {
    document.querySelectorAll("details[data-opened]").forEach((node) => { node.open = false; delete node.dataset.opened; });
    root.dataset.theme = root.dataset.before;
  }
  changed();
}
window.addEventListener("beforeprint", () => printing(true));
window.addEventListener("afterprint", () => printing(false));
window.matchMedia("print").addEventListener("change", (event) => printing(event.matches));

/* A select that shows one of several blocks. */
document.querySelectorAll("select[data-shows]").forEach((select) => {
  const show = () => {
    document.querySelectorAll(`[data-block="${select.dataset.shows}"]`).forEach((block) => {
      block.hidden = block.dataset.value !== select.value;
      if (!block.hidden) block.querySelectorAll("[data-figure]").forEach((node) => draw(node));
    });
  };
  select.addEventListener("change", show);
});
