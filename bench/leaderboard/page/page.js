(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (query, from = document) => from.querySelector(query);
  const $$ = (query, from = document) => Array.from(from.querySelectorAll(query));
  const NONE = "–";
  const LIMIT = data.shown;
  const titles = Object.fromEntries(data.axes.map((axis) => [axis.key, axis.title]));
  const svgNS = "http://www.w3.org/2000/svg";

  // All text goes in through textContent: nothing of the data is ever parsed as HTML.
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const draw = (tag, attributes = {}, text = null) => {
    const node = document.createElementNS(svgNS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== null) node.textContent = text;
    return node;
  };
  const number = (value, digits = 2, signed = false) => {
    if (value === null || value === undefined) return NONE;
    const text = Math.abs(value).toFixed(digits).replace(/^0\./, ".");
    const zero = Number(text) === 0;
    return (value < 0 && !zero ? "−" : signed && !zero ? "+" : "") + text;
  };
  const axisText = (value) => (value === null || value === undefined ? NONE : String(value));
  const plain = (name) => name.replaceAll("_", " ");

  // ---- state: filters and sorting, kept in the address so that a view can be shared
  const form = $("#filters");
  const sections = $$("section[data-section]").map((node) => ({
    node,
    name: node.dataset.section,
    body: $("tbody", node),
    rows: $$("tbody tr", node),
    original: $$("tbody tr", node),
    heads: $$("thead th", node),
    sort: null,
    all: false,
  }));

  const keep = () => {
    const state = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value) state.set(name, value);
    for (const section of sections)
      if (section.sort) state.set(`sort.${section.name}`, `${section.sort.key}.${section.sort.down ? "desc" : "asc"}`);
    const theme = document.documentElement.dataset.theme;
    if (theme) state.set("theme", theme);
    // A sandboxed frame may refuse; the page works without.
    try { history.replaceState(null, "", state.size ? `#${state}` : location.pathname + location.search); } catch { /* stay */ }
  };
  const restore = () => {
    const text = location.hash.slice(1);
    if (!text.includes("=")) return;
    const state = new URLSearchParams(text);
    for (const [name, value] of state) {
      if (name === "theme") document.documentElement.dataset.theme = value === "dark" ? "dark" : "light";
      else if (name.startsWith("sort.")) {
        const section = sections.find((s) => s.name === name.slice(5));
        const [key, way] = value.split(".");
        if (section && section.heads.some((head) => head.dataset.key === key)) sortBy(section, key, way === "desc");
      } else if (name === "open") { const row = rowOf(value); if (row) toggle(row); }
      else if (form.elements[name]) form.elements[name].value = value;
    }
  };

  // ---- filters
  const wanted = () => {
    const fields = Object.fromEntries(new FormData(form));
    const words = (fields.q || "").toLowerCase().replaceAll("_", " ").split(/\s+/).filter(Boolean);
    const axes = data.varying.filter((axis) => fields[axis]);
    return (node) => {
      const entry = data.rows[node.dataset.cell];
      if (fields.role && entry.row.role !== fields.role) return false;
      if (axes.some((axis) => axisText(entry.row.axes[axis]) !== fields[axis])) return false;
      return words.every((word) => node.dataset.search.includes(word));
    };
  };
  let passing = new Set();
  const filter = () => {
    const test = wanted();
    let shown = 0, total = 0;
    passing = new Set();
    for (const section of sections) {
      let here = 0;
      for (const row of section.rows) {
        const ok = test(row);
        if (ok) { here += 1; passing.add(row.dataset.cell); }
        row.hidden = !ok || (!section.all && here > LIMIT);
        const detail = details.get(row);
        if (detail) detail.hidden = row.hidden;
      }
      total += section.rows.length;
      shown += here;
      $("h2 .n", section.node).textContent = here === section.rows.length ? String(here) : `${here} of ${section.rows.length}`;
      $(".scroll", section.node).hidden = here === 0;
      $(".empty", section.node).hidden = here !== 0;
      const more = $(".all", section.node);
      more.hidden = section.all || here <= LIMIT;
      more.textContent = `Show all ${here} rows`;
    }
    for (const field of form.elements) if (field.name) field.classList.toggle("on", Boolean(field.value));
    $("#count").textContent = `${shown} of ${total} rows`;
    heat();
  };

  // ---- sorting; a missing number stays last whichever way
  const sortBy = (section, key, down) => {
    const column = section.heads.findIndex((head) => head.dataset.key === key);
    const value = (row) => row.children[column].dataset.v;
    const isText = section.heads[column].classList.contains("text");
    section.rows = [...section.original].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const order = isText ? x.localeCompare(y) : Number(x) - Number(y);
      return down ? -order : order;
    });
    section.sort = { key, down };
    section.heads.forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    for (const row of section.rows) {
      row.classList.remove("more");
      section.body.append(row);
      const detail = details.get(row);
      if (detail) section.body.append(detail);
    }
  };

  // ---- the details of a row
  const details = new Map();
  const rowOf = (cell) => sections.flatMap((s) => s.original).find((row) => row.dataset.cell === cell);
  const pairs = (title, entries) =>
    make("div", {}, make("h4", {}, title), make("dl", {}, ...entries.map(([key, value]) =>
      make("div", {}, make("dt", {}, key), make("dd", {}, value)))));
  const build = (cell) => {
    const entry = data.rows[cell];
    const grid = make("div", { class: "detail-grid" }, ...entry.details.map(([title, entries]) => pairs(title, entries)));
    if (entry.curves.length) {
      const button = make("button", { type: "button" }, chosen.has(cell) ? "Remove from the ROC panel" : "Add to the ROC panel");
      button.addEventListener("click", () => {
        if (chosen.has(cell)) chosen.delete(cell); else chosen.add(cell);
        button.textContent = chosen.has(cell) ? "Remove from the ROC panel" : "Add to the ROC panel";
        curves();
      });
      const figure = make("div", {}, make("h4", {}, "ROC"));
      figure.append(plotRoc([{ cell, colour: "var(--blue)" }], false), button);
      grid.append(figure);
    }
    if (entry.sheet) {
      const picture = $(`#sheet-${entry.sheet} img`);
      if (picture) grid.append(make("div", {}, make("h4", {}, "What its target drew"), make("img", { src: picture.src, alt: picture.alt })));
    }
    return grid;
  };
  const toggle = (row) => {
    const button = $(".open", row), old = details.get(row);
    if (old) { old.remove(); details.delete(row); }
    else {
      const cell = make("td", { colspan: row.children.length }, build(row.dataset.cell));
      const detail = make("tr", { class: "detail" }, cell);
      details.set(row, detail);
      row.after(detail);
    }
    button.setAttribute("aria-expanded", String(!old));
  };

  // ---- ROC curves
  const COLOURS = ["#1f77b4", "#e0791b", "#2f9e63", "#b0479a", "#c0392b", "#7a68c9", "#8c6d46", "#3aa6b9"];
  const chosen = new Set();
  const FLOOR = 1e-3;
  const plotRoc = (list, log) => {
    const W = 420, H = 380, L = 40, R = 20, T = 10, B = 38;
    const x = (f) => L + (W - L - R) * (log ? (Math.log10(Math.max(f, FLOOR)) - Math.log10(FLOOR)) / -Math.log10(FLOOR) : f);
    const y = (t) => H - B - (H - B - T) * t;
    const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `ROC curves, ${log ? "logarithmic" : "linear"} false positive rate`, width: "100%" });
    for (const f of log ? [0.001, 0.01, 0.1, 1] : [0, 0.25, 0.5, 0.75, 1]) {
      svg.append(draw("line", { class: "grid", x1: x(f), x2: x(f), y1: T, y2: H - B }));
      svg.append(draw("text", { x: x(f), y: H - B + 15, "text-anchor": "middle" }, log ? `${100 * f} %` : number(f)));
    }
    for (const t of [0, 0.25, 0.5, 0.75, 1]) {
      svg.append(draw("line", { class: "grid", x1: L, x2: W - R, y1: y(t), y2: y(t) }));
      svg.append(draw("text", { x: L - 6, y: y(t) + 4, "text-anchor": "end" }, number(t)));
    }
    svg.append(draw("text", { x: (W + L) / 2, y: H - 6, "text-anchor": "middle" }, `false positive rate${log ? ", logarithmic" : ""}`));
    svg.append(draw("rect", { class: "frame", x: L, y: T, width: W - L - R, height: H - B - T }));
    const diagonal = Array.from({ length: 61 }, (_, i) => (log ? FLOOR ** (1 - i / 60) : i / 60));
    svg.append(draw("polyline", { class: "chance", points: diagonal.map((f) => `${x(f).toFixed(1)},${y(f).toFixed(1)}`).join(" ") }));
    for (const { cell, colour } of list)
      data.rows[cell].curves.forEach((curve, index) => {
        const points = [];
        curve.fpr.forEach((f, i) => {
          if (i && f !== curve.fpr[i - 1]) points.push(`${x(f).toFixed(1)},${y(curve.tpr[i - 1]).toFixed(1)}`);
          points.push(`${x(f).toFixed(1)},${y(curve.tpr[i]).toFixed(1)}`);
        });
        const line = draw("polyline", { points: points.join(" "), fill: "none", "stroke-width": 1.8, "stroke-linejoin": "round", style: `stroke:${colour}`, "stroke-dasharray": ["", "6 3", "2 3", "8 3 2 3"][index % 4] });
        line.append(draw("title", {}, `world ${curve.world}${curve.auc === null ? "" : `, AUC ${number(curve.auc)}`}`));
        svg.append(line);
      });
    return svg;
  };
  const label = (cell) => data.rows[cell].label;
  const curves = () => {
    const list = [...chosen].map((cell, index) => ({ cell, colour: COLOURS[index % COLOURS.length] }));
    $("#roc-linear").replaceChildren(plotRoc(list, false));
    $("#roc-log").replaceChildren(plotRoc(list, true));
    $("#roc-legend").replaceChildren(...list.map(({ cell, colour }) => {
      const m = data.rows[cell].row.measured;
      const button = make("button", { type: "button", "aria-label": `Remove ${label(cell)}` }, "×");
      button.addEventListener("click", () => { chosen.delete(cell); curves(); });
      return make("li", {}, make("i", { style: `background:${colour}` }), make("span", {}, `${label(cell)}: AUC ${number(m.auc)}`), button);
    }));
  };
  const startCurves = () => {
    const with_ = Object.entries(data.rows).filter(([, entry]) => entry.curves.length);
    const first = (section) => (with_.find(([, entry]) => entry.section === section) || [])[0];
    for (const cell of [first("cross"), first("ranked"), first("planted"), first("control")]) if (cell) chosen.add(cell);
    if (with_.length) { $("#roc").hidden = false; curves(); }
  };

  // ---- heat map
  const heatWhat = $("#heat-what"), heatX = $("#heat-x"), heatY = $("#heat-y"), heatPlanted = $("#heat-planted");
  const quantity = {
    delta: (e) => (e.row.estimand === "same_source" && (e.section === "ranked" || (heatPlanted.checked && e.section === "planted")) ? e.row.measured.delta_auc : null),
    left: (e) => (e.section === "cross" && e.row.measured.auc !== null && e.row.measured.source_auc !== null ? e.row.measured.auc - e.row.measured.source_auc : null),
    cross: (e) => (e.section === "cross" ? e.row.measured.auc : null),
  };
  const mix = (value, span) => {
    const t = Math.max(-1, Math.min(1, value / span)), a = Math.abs(t) ** 0.8;
    const from = [246, 244, 238], to = t >= 0 ? [22, 84, 158] : [140, 60, 134];
    const rgb = from.map((v, i) => Math.round(v + (to[i] - v) * a));
    const light = rgb.map((v) => (v / 255) ** 2.2).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    return { background: `rgb(${rgb.join(" ")})`, color: light > 0.3 ? "#1c2430" : "#fff" };
  };
  const ordered = (values) => [...new Set(values)].sort((a, b) => {
    if (a === NONE || b === NONE) return (a === NONE) - (b === NONE);
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  });
  const heat = () => {
    if ($("#heat").hidden) return;
    const what = heatWhat.value, ax = heatX.value, ay = heatY.value;
    const fields = new Map();
    for (const cell of passing) {
      const entry = data.rows[cell], value = quantity[what](entry);
      if (value === null || value === undefined) continue;
      const key = JSON.stringify([axisText(entry.row.axes[ay]), axisText(entry.row.axes[ax])]);
      fields.set(key, [...(fields.get(key) || []), value]);
    }
    const keys = [...fields.keys()].map((key) => JSON.parse(key));
    const xs = ordered(keys.map((k) => k[1])), ys = ordered(keys.map((k) => k[0]));
    if (!keys.length) { $("#heat-map").replaceChildren(make("p", { class: "empty" }, "No row to show.")); return; }
    const centre = what === "cross" ? 0.5 : 0;
    const means = new Map([...fields].map(([key, v]) => [key, v.reduce((a, b) => a + b, 0) / v.length]));
    const span = Math.max(0.1, ...[...means.values()].map((v) => Math.abs(v - centre)));
    const table = make("table", { class: "heat" });
    const ramp = [-span, -span / 2, 0, span / 2, span].map((v) => mix(v, span).background).join(",");
    table.append(make("caption", {}, `${heatWhat.selectedOptions[0].textContent}: `, number(centre - span, 2, what !== "cross"), make("span", { class: "ramp", style: `background:linear-gradient(90deg,${ramp})` }), number(centre + span, 2, what !== "cross")));
    table.append(make("thead", {}, make("tr", {}, make("th", { class: "text" }, `${titles[ay]} \\ ${titles[ax]}`), ...xs.map((v) => make("th", { scope: "col" }, v)))));
    table.append(make("tbody", {}, ...ys.map((yv) => make("tr", {}, make("th", { scope: "row", class: "text" }, plain(yv)), ...xs.map((xv) => {
      const key = JSON.stringify([yv, xv]);
      if (!means.has(key)) return make("td", { class: "none" }, NONE);
      const { background, color } = mix(means.get(key) - centre, span), n = fields.get(key).length;
      return make("td", { style: `background:${background};color:${color}` }, number(means.get(key), 2, what !== "cross"), n > 1 ? make("small", {}, `mean of ${n}`) : null);
    })))));
    $("#heat-map").replaceChildren(table);
  };
  const startHeat = () => {
    const axes = data.varying.filter((axis) => axis !== "query");
    if (!axes.length) return;
    for (const axis of axes) for (const select of [heatX, heatY]) select.append(make("option", { value: axis }, titles[axis]));
    // The two axes that spread the ranked rows over the most fields.
    const rows = Object.values(data.rows).filter((e) => quantity.delta(e) !== null);
    const fields = (a, b) => new Set(rows.map((e) => JSON.stringify([e.row.axes[a], e.row.axes[b]]))).size;
    let best = [axes[0], axes[axes.length - 1], -1];
    for (const a of axes) for (const b of axes) {
      const used = fields(a, b), whole = new Set(rows.map((e) => e.row.axes[a])).size * new Set(rows.map((e) => e.row.axes[b])).size;
      const worth = a === b ? 0 : used * (whole ? used / whole : 0) + (a === "attack" ? 0.5 : 0);
      if (worth > best[2]) best = [a, b, worth];
    }
    heatY.value = best[0]; heatX.value = best[1];
    for (const select of [heatWhat, heatX, heatY, heatPlanted]) select.addEventListener("change", heat);
    $("#heat").hidden = false;
  };

  // ---- wiring
  form.hidden = false;
  form.addEventListener("input", () => { filter(); keep(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { filter(); keep(); }));
  for (const section of sections) {
    section.node.addEventListener("click", (event) => {
      const sort = event.target.closest(".sort"), open = event.target.closest(".open");
      if (sort) {
        const key = sort.closest("th").dataset.key, same = section.sort && section.sort.key === key;
        const rising = "rising" in sort.closest("th").dataset;
        sortBy(section, key, same ? !section.sort.down : !rising);
        filter(); keep();
      } else if (open) toggle(open.closest("tr"));
      else if (event.target.closest(".all")) { section.all = true; filter(); }
    });
  }
  $("#theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    keep();
  });
  const save = $("#save");
  save.hidden = false;
  save.addEventListener("click", () => {
    const rows = Object.values(data.rows).map((entry) => entry.row);
    const url = URL.createObjectURL(new Blob([JSON.stringify(rows, null, 1)], { type: "application/json" }));
    const link = make("a", { href: url, download: `${data.campaign}.json` });
    link.click();
    URL.revokeObjectURL(url);
  });
  startHeat();
  startCurves();
  restore();
  filter();
})();
