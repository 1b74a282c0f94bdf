/* Attention patterns: one large map, a small one of every head, the text itself; a slider over the checkpoints. */
(function attention() {
  const box = document.getElementById("attention");
  const found = read("patterns");
  if (!box || !found) return;
  const part = (name) => box.querySelector(`[data-part="${name}"]`);
  const view = { snippet: 0, step: found.steps.length - 1, head: found.first[1], query: null, key: null, pinned: false };
  const loaded = new Map();
  const say = (step) => step.toLocaleString("en-US");

  /* Weights of one snippet: bytes [S, H, T, T], deflated, as base64. */
  async function weights(snippet) {
    if (!loaded.has(snippet)) {
      const bytes = Uint8Array.from(atob(found.weights[snippet]), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      loaded.set(snippet, new Uint8Array(await new Response(stream).arrayBuffer()));
    }
    return loaded.get(snippet);
  }
  const size = () => found.tokens[view.snippet].length;
  const block = (bytes, head) => {
    const n = size() * size();
    const start = (view.step * found.heads.length + head) * n;
    return bytes.subarray(start, start + n);
  };

  /* 256 colours from paper to ink; weight enters by its square root, so that faint attention is seen. */
  let ramp = [], masked = [0, 0, 0];
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  function colours() {
    const stops = ["map-0", "map-1", "map-2"].map((name) => rgb(css(name)));
    ramp = Array.from({ length: 256 }, (_, i) => {
      const t = Math.sqrt(i / 255) * 2, [a, b] = t < 1 ? [stops[0], stops[1]] : [stops[1], stops[2]], u = t < 1 ? t : t - 1;
      return a.map((v, k) => Math.round(v + (b[k] - v) * u));
    });
    masked = rgb(css("faint"));
    part("ramp").style.background = `linear-gradient(90deg, ${[0, 0.04, 0.16, 0.36, 0.64, 1].map((w) => `rgb(${ramp[Math.round(255 * w)]}) ${100 * w}%`).join(", ")})`;
  }
  const inkOn = (weight) => (0.3 * ramp[weight][0] + 0.59 * ramp[weight][1] + 0.11 * ramp[weight][2] > 140 ? "#12151a" : "#ffffff");

  function paint(canvas, values, n) {
    const image = new ImageData(n, n);
    for (let q = 0; q < n; q += 1) for (let k = 0; k < n; k += 1) {
      const i = q * n + k, colour = k > q && values[i] === 0 ? masked : ramp[values[i]];
      image.data.set([...colour, 255], 4 * i);
    }
    canvas.width = n; canvas.height = n;
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  const map = part("map"), small = document.createElement("canvas");
  function paintMap(values) {
    const n = size(), edge = Math.round((map.clientWidth || 500) * Math.min(2, window.devicePixelRatio || 1));
    paint(small, values, n);
    map.width = edge; map.height = edge;
    const pen = map.getContext("2d"), cell = edge / n;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, 0, 0, edge, edge);
    if (view.query === null) return;
    pen.lineWidth = Math.max(1.5, edge / 400);
    pen.strokeStyle = css("link");
    pen.strokeRect(0, view.query * cell, edge, cell);
    if (view.key !== null) {
      pen.strokeStyle = css("ink");
      pen.setLineDash([5, 4]);
      pen.strokeRect(view.key * cell, 0, cell, edge);
      pen.setLineDash([]);
      pen.strokeRect(view.key * cell - 1, view.query * cell - 1, cell + 2, cell + 2);
    }
  }

  function paintTokens(values) {
    const n = size(), spans = part("tokens").querySelectorAll("span");
    for (let i = 0; i < n; i += 1) {
      const weight = view.query === null ? 0 : values[view.query * n + i];
      spans[i].style.background = view.query === null || (i > view.query && !weight) ? "" : `rgb(${ramp[weight]})`;
      spans[i].style.color = view.query === null || (i > view.query && !weight) ? "" : inkOn(weight);
      spans[i].classList.toggle("query", i === view.query);
      spans[i].classList.toggle("key", i === view.key && i !== view.query);
    }
  }

  function tell(values) {
    const tokens = found.tokens[view.snippet], out = part("readout"), n = size();
    const head = setup.heads.find((h) => h.name === found.heads[view.head]);
    out.replaceChildren();
    if (view.query === null) {
      out.append(`Head ${found.heads[view.head]}${head ? ` (${head.type})` : ""} at step ${say(found.steps[view.step])}. Point at the map or at a word; press to hold it.`);
      return;
    }
    const word = (i) => make("b", { textContent: tokens[i] });
    const row = [...values.subarray(view.query * n, (view.query + 1) * n)];
    if (view.key !== null) {
      out.append("From ", word(view.query), ` (position ${view.query}) to `, word(view.key), ` (position ${view.key}): `,
        make("b", { textContent: (row[view.key] / 255).toFixed(2) }), ". ");
    } else out.append("From ", word(view.query), ` (position ${view.query}). `);
    const best = row.map((w, i) => [w, i]).sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([w]) => w > 0);
    if (best.length) out.append("Most to ");
    best.forEach(([w, i], rank) => out.append(rank ? ", " : "", word(i), ` at ${i} (${(w / 255).toFixed(2)})`));
    if (best.length) out.append(".");
  }

  const thumbs = found.heads.map((name, i) => {
    const known = setup.heads.find((head) => head.name === name);
    const canvas = make("canvas", {});
    const node = make("button", { type: "button", title: known ? known.type : "" }, canvas,
      make("small", {}, name, make("span", { textContent: known ? ` ${known.type}` : "" })));
    node.setAttribute("aria-label", `Head ${name}${known ? `, ${known.type}` : ""}`);
    if (known) node.style.color = `var(--${known.style})`;
    node.addEventListener("click", () => { view.head = i; show(); });
    part("thumbs").append(node);
    return [node, canvas];
  });

  let turn = 0;
  async function show() {
    const mine = turn += 1;
    let bytes;
    try { bytes = await weights(view.snippet); } catch (error) {
      part("readout").textContent = "This browser cannot unpack the attention patterns (it lacks DecompressionStream). A newer one can.";
      return;
    }
    if (mine !== turn) return; // a later choice overtook this one
    thumbs.forEach(([node, canvas], i) => {
      paint(canvas, block(bytes, i), size());
      node.setAttribute("aria-pressed", String(i === view.head));
    });
    lightly(bytes);
    part("step").textContent = `step ${say(found.steps[view.step])}`;
    part("slider").setAttribute("aria-valuetext", `step ${found.steps[view.step]}`);
    const title = `Head ${found.heads[view.head]} on ${found.snippets[view.snippet]}, step ${say(found.steps[view.step])}`;
    map.setAttribute("aria-label", `Attention map. ${title}. Arrow keys move the query and the key.`);
    box.dataset.shown = `${view.snippet}/${view.step}/${view.head}`;
  }
  function lightly(bytes) {
    const values = block(bytes || loaded.get(view.snippet), view.head);
    paintMap(values); paintTokens(values); tell(values);
  }
  const move = (query, key) => { if (loaded.has(view.snippet)) { view.query = query; view.key = key; lightly(); } };

  function chooseSnippet(i) {
    view.snippet = i; view.query = null; view.key = null; view.pinned = false;
    part("tokens").replaceChildren(...found.tokens[i].map((token, at) => {
      const span = make("span", { textContent: token });
      span.addEventListener("pointerenter", () => { if (!view.pinned) move(at, null); });
      span.addEventListener("click", () => { view.pinned = !(view.pinned && view.query === at); move(at, null); });
      return token.endsWith("⏎") ? [span, document.createElement("br")] : [span];
    }).flat());
    show();
  }
  const place = (event) => {
    const frame = map.getBoundingClientRect(), n = size();
    const at = (v, length) => Math.min(n - 1, Math.max(0, Math.floor((v / length) * n)));
    return [at(event.clientY - frame.top, frame.height), at(event.clientX - frame.left, frame.width)];
  };
  map.addEventListener("pointermove", (event) => { if (!view.pinned) move(...place(event)); });
  map.addEventListener("pointerleave", () => { if (!view.pinned) move(null, null); });
  part("tokens").addEventListener("pointerleave", () => { if (!view.pinned) move(null, null); });
  map.addEventListener("click", (event) => {
    const [query, key] = place(event);
    view.pinned = !(view.pinned && view.query === query && view.key === key);
    move(query, key);
  });
  map.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Escape") { view.pinned = false; move(null, null); }
    if (!step) return;
    event.preventDefault();
    const n = size(), clamp = (v) => Math.min(n - 1, Math.max(0, v));
    view.pinned = true;
    move(clamp((view.query ?? 0) + step[0]), clamp((view.key ?? 0) + step[1]));
  });
  const slider = part("slider");
  slider.max = String(found.steps.length - 1);
  slider.value = String(view.step);
  slider.addEventListener("input", () => { view.step = Number(slider.value); show(); });
  const select = part("snippet");
  found.snippets.forEach((name, i) => select.append(make("option", { value: String(i), textContent: name })));
  select.addEventListener("change", () => chooseSnippet(Number(select.value)));

  let timer = 0;
  const play = part("play");
  play.addEventListener("click", () => {
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
    if (timer) { stop(); return; }
    play.textContent = "Stop";
    if (view.step === found.steps.length - 1) view.step = -1;
    timer = setInterval(() => {
      view.step += 1; slider.value = String(view.step); show();
      if (view.step >= found.steps.length - 1) stop();
    }, 700);
  });
  state.watchers.push(() => { colours(); show(); });
  colours();
  select.value = String(found.first[0]);
  chooseSnippet(found.first[0]);
})();
