/* The table of all cells: filtered and sorted here, downloaded whole. */
(function cellTable() {
  const found = read("cells"), box = document.getElementById("cells-table");
  if (!found || !box) return;
  const { columns, rows, shown, name } = found;
  const at = (column) => columns.indexOf(column);

  const quote = (value) => {
    if (value === null) return "";
    const text = typeof value === "boolean" ? (value ? "True" : "False") : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = () => [columns, ...rows].map((row) => row.map(quote).join(",")).join("\n") + "\n";
  const json = () => JSON.stringify(rows.map((row) => Object.fromEntries(columns.map((c, i) => [c, row[i]]))), null, 1) + "\n";
  const save = (id, kind, content) => document.getElementById(id).addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([content()], { type: kind }));
    const link = make("a", { href: url, download: `${name}.${id.split("-")[1]}` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  });
  save("save-csv", "text/csv;charset=utf-8", csv);
  save("save-json", "application/json", json);

  const view = { sort: null, down: false, most: 15, filters: {} };
  const filters = document.getElementById("cells-filters");
  for (const column of ["data", "part", "step", "outcome"]) {
    if (at(column) < 0) continue;
    const values = [...new Set(rows.map((row) => row[at(column)]))];
    if (column === "step") values.sort((a, b) => a - b);
    const select = make("select", {}, make("option", { value: "", textContent: `every ${column}` }));
    select.setAttribute("aria-label", `Filter by ${column}`);
    values.forEach((value, i) => select.append(make("option", { value: String(i + 1), textContent: value === null ? "none" : String(value) })));
    select.addEventListener("change", () => {
      if (select.value) view.filters[column] = values[Number(select.value) - 1]; else delete view.filters[column];
      view.most = 15;
      show();
    });
    filters.append(select);
  }

  const text = (value) => {
    if (value === null) return "";
    if (typeof value === "number" && !Number.isInteger(value)) return (Math.abs(value) >= 1e-3 ? value.toFixed(3) : value.toPrecision(3)).replace("-", "−");
    return typeof value === "number" ? value.toLocaleString("en-US") : String(value);
  };
  function show() {
    let kept = rows.filter((row) => Object.entries(view.filters).every(([column, value]) => row[at(column)] === value));
    if (view.sort !== null) {
      const i = at(view.sort), sign = view.down ? -1 : 1;
      kept = [...kept].sort((a, b) => {
        if (a[i] === null || b[i] === null) return (a[i] === null) - (b[i] === null);
        return sign * (typeof a[i] === "number" ? a[i] - b[i] : String(a[i]).localeCompare(String(b[i]), "en", { numeric: true }));
      });
    }
    const head = make("tr", {}, ...shown.map((column) => {
      const button = make("button", { type: "button", textContent: column + (view.sort === column ? (view.down ? " ↓" : " ↑") : "") });
      button.addEventListener("click", () => { view.down = view.sort === column ? !view.down : false; view.sort = column; show(); });
      const cell = make("th", { scope: "col", className: rows.some((row) => typeof row[at(column)] === "number") ? "n" : "" }, button);
      if (view.sort === column) cell.setAttribute("aria-sort", view.down ? "descending" : "ascending");
      return cell;
    }));
    const body = kept.slice(0, view.most).map((row) => make("tr", {}, ...shown.map((column) => {
      const value = row[at(column)];
      const cell = make("td", { className: typeof value === "number" ? "n" : "" });
      if (column === "outcome") cell.append(make("span", { className: `tag ${value}`, textContent: value === null ? "none" : value }));
      else cell.textContent = text(value);
      return cell;
    })));
    box.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
    const more = document.getElementById("cells-more");
    more.hidden = kept.length <= view.most;
    more.textContent = `Show more (${(kept.length - view.most).toLocaleString("en-US")} left)`;
    document.getElementById("cells-count").textContent = `${kept.length.toLocaleString("en-US")} of ${rows.length.toLocaleString("en-US")} rows`;
  }
  document.getElementById("cells-more").addEventListener("click", () => { view.most += 100; show(); });
  show();
})();
