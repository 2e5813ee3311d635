// Part 2 of the attention explorer: the grid of small maps, and the heat map of the selected one.

const MOST_NUMBERS = 14; // up to so many columns there is room for numbers in the cells
const MOST_LETTERS = 10; // of a label beside the heat map
const CROWDED = 9; // in cells narrower than this every other label is left out

class Maps {
  constructor(id) {
    this.id = id;
    this.grid = focusable("div", { class: "ae-grid", role: "listbox", "aria-label": "Layers and heads" });
    this.heat = make("div", { class: "ae-heat" });
    this.heatTitle = make("div", { class: "ae-title" });
    this.legend = make("div", { class: "ae-legend", title: "weight" });
  }

  load(data) {
    this.data = data;
    this.buildGrid();
    this.buildHeat();
    this.repaint();
  }

  buildGrid() {
    const { L, H, T, S } = this.data, size = clamp(Math.floor(290 / H) - 4, 18, 52);
    this.grid.style.gridTemplateColumns = `auto repeat(${H}, ${size}px)`;
    this.grid.replaceChildren(make("span"), ...range(H).map((head) => make("span", { class: "ae-head" }, head)));
    this.thumbs = [];
    for (let layer = 0; layer < L; layer++) {
      const layerName = this.data.layer_names[layer];
      this.grid.append(make("span", { class: "ae-layer", title: layerName }, layerName));
      for (let head = 0; head < H; head++) {
        const name = this.data.name(layer, head);
        const thumb = make("canvas", {
          width: S, height: T, role: "option", id: `${this.id}-${layer}-${head}`, class: "ae-hatched",
          "data-layer": layer, "data-head": head, "aria-label": name, title: name,
        });
        thumb.style.height = `${size}px`;
        thumb.style.imageRendering = 2 * S <= size ? "pixelated" : "auto";
        this.thumbs.push(thumb);
        this.grid.append(thumb);
      }
    }
  }

  buildHeat() {
    const { T, S, queries, keys } = this.data, c = clamp(Math.floor(400 / Math.max(T, S)), T > 100 ? 3 : 7, 34);
    const font = clamp(c, 9, 12);
    const room = (labels) => Math.max(...labels.map((label) => Math.min(MOST_LETTERS, breadth(label)))) * 0.62 * font + 8;
    const left = Math.ceil(Math.max(48, room(queries))), top = Math.ceil(Math.max(30, room(keys)));
    this.cell = c;
    this.origin = [left, top];
    this.cells = make("canvas", { width: S, height: T, class: "ae-cells ae-hatched", role: "img" });
    Object.assign(this.cells.style, { left: `${left}px`, top: `${top}px`, width: `${c * S}px`, height: `${c * T}px` });
    const size = { width: left + c * S + 4, height: top + c * T + 4 };
    this.labels = make("svg", { ...size, class: "ae-labels", "font-size": font, "aria-hidden": "true" });
    if (c >= 7) {
      queries.forEach((text, q) => this.labels.append(this.label(text, "q", q, left - 4, top + c * (q + 0.5), 0)));
      keys.forEach((text, k) => this.labels.append(this.label(text, "k", k, left + c * (k + 0.5), top - 4, -90)));
    }
    this.numbers = make("g", { "font-size": 10 });
    this.cross = range(2).map(() => make("rect", { class: "ae-cross", visibility: "hidden" }));
    this.labels.append(
      make("text", { x: left - 4, y: top - 16, class: "ae-axis" }, "key →"),
      make("text", { x: left - 4, y: top - 4, class: "ae-axis" }, "query ↓"), this.numbers, ...this.cross);
    this.tip = make("div", { class: "ae-tip", hidden: "" });
    Object.assign(this.heat.style, { width: `${size.width}px`, height: `${size.height}px` });
    this.heat.replaceChildren(this.cells, this.labels, this.tip);
  }

  label(text, side, index, x, y, turn) {
    const letters = [...text], short = breadth(text) > MOST_LETTERS;
    const kept = Math.floor(((MOST_LETTERS - 1) * letters.length) / breadth(text));
    const cut = short ? `${letters.slice(0, kept).join("")}…` : text;
    return make("text", {
      x, y, [`data-${side}`]: index, class: this.cell < CROWDED && index % 2 ? "ae-skipped" : "", direction: "ltr",
      "dominant-baseline": "central", "text-anchor": turn ? "start" : "end",
      transform: turn ? `rotate(${turn} ${x} ${y})` : null }, cut);
  }

  // After new maps or another scale.
  repaint() {
    this.thumbs.forEach((canvas, i) => this.data.paint(canvas, Math.floor(i / this.data.H), i % this.data.H));
    const { byRoot } = this.data, bar = make("div", { class: "ae-bar" });
    const stops = range(11).map((i) => this.data.rgb(byRoot ? (i / 10) ** 2 : i / 10));
    bar.style.background = `linear-gradient(to right, ${stops.join(",")})`;
    const marks = (byRoot ? [0, 0.05, 0.25, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((tick) => {
      const mark = make("span", {}, tick);
      mark.style.left = `${100 * this.data.shade(tick)}%`;
      return mark;
    });
    this.legend.replaceChildren(bar, make("div", { class: "ae-ticks" }, ...marks));
  }

  draw(layer, head, drawnHeads) {
    const { data, cell: c } = this, [left, top] = this.origin;
    this.thumbs.forEach((thumb, i) => thumb.setAttribute("aria-selected", String(i === layer * data.H + head)));
    this.grid.setAttribute("aria-activedescendant", this.thumbs[layer * data.H + head].id);
    this.grid.querySelectorAll(".ae-head").forEach((label, i) => {
      label.style.borderColor = drawnHeads.includes(i) ? data.color(i) : "transparent";
    });
    this.heatTitle.textContent = data.name(layer, head);
    this.cells.setAttribute("aria-label", `Heat map of ${data.name(layer, head)}: rows are queries, columns keys`);
    data.paint(this.cells, layer, head);
    this.numbers.replaceChildren();
    if (data.S > MOST_NUMBERS || c < 26) return;
    for (const [q, k] of range(data.T).flatMap((index) => data.pairs({ side: "query", index }))) {
      const weight = data.weight(layer, head, q, k), fill = data.shade(weight ?? 0) > 0.55 ? "#000" : "#fff";
      if (weight === null || weight < 0.005) continue;
      const place = { x: left + c * (k + 0.5), y: top + c * (q + 0.5), fill, class: "ae-number" };
      this.numbers.append(make("text", place, weight < 0.995 ? weight.toFixed(2).slice(1) : "1.00"));
    }
  }

  // Frame the row of the query and the column of the key that lines are drawn of, or the cell under the pointer.
  mark(active, cell) {
    const { data, cell: c } = this, [left, top] = this.origin;
    const q = active?.side === "query" ? active.index : null;
    const k = active?.side === "key" ? active.index : cell ? cell[1] : null;
    const row = q === null ? null : [left, top + c * q, c * data.S, c];
    const column = k === null ? null : [left + c * k, top, c, c * data.T], places = [row, column];
    this.cross.forEach((rect, i) => {
      rect.setAttribute("visibility", places[i] ? "visible" : "hidden");
      if (places[i]) ["x", "y", "width", "height"].forEach((name, j) => rect.setAttribute(name, places[i][j]));
    });
    for (const label of this.labels.querySelectorAll("[data-q], [data-k]"))
      label.classList.toggle("ae-active", label.dataset.q === String(q) || label.dataset.k === String(k));
  }

  // The cell [query, key] under the pointer, or null.
  cellAt(event) {
    const place = this.cells.getBoundingClientRect();
    const q = Math.floor((event.clientY - place.top) / this.cell), k = Math.floor((event.clientX - place.left) / this.cell);
    return q >= 0 && q < this.data.T && k >= 0 && k < this.data.S ? [q, k] : null;
  }

  showTip(cell, weight) {
    this.tip.hidden = !cell;
    if (!cell) return;
    const [q, k] = cell, [left, top] = this.origin;
    this.tip.replaceChildren(word(this.data.queries[q]), " → ", word(this.data.keys[k]), ` ${number(weight)}`);
    this.tip.dataset.weight = weight ?? "masked";
    this.tip.style.left = `${Math.min(left + this.cell * (k + 1), this.heat.clientWidth - 90)}px`;
    this.tip.style.top = `${top + this.cell * (q + 1) + 4}px`;
  }
}

// Letters as wide as a Latin one; Japanese and emoji count twice.
function breadth(text) {
  return [...text].reduce((sum, letter) => sum + (letter > "\u2e7f" ? 1.7 : 1), 0);
}
