// Part 3 of the attention explorer: queries and keys with the lines between them, or a picture's patches.

const FAINT = 0.03; // weaker lines are left out of the picture at rest; a token's own lines are all drawn

class Tokens {
  constructor(id) {
    this.id = id;
    this.title = make("div", { class: "ae-title" });
    this.place = make("div", { class: "ae-tokens" });
    this.categories = make("div", { class: "ae-categories" });
  }

  load(data) {
    this.data = data;
    this.forget();
    if (data.picture) this.buildPicture();
    else this.buildColumns();
    this.categories.replaceChildren(...(data.color_names ?? []).map((name, category) => {
      const entry = make("span", {}, name);
      this.colorToken(entry, category);
      return entry;
    }));
  }

  forget() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
  }

  token(side, index, what, ...children) {
    const isQuery = side === "query", label = (isQuery ? this.data.queries : this.data.keys)[index];
    return make("div", {
      class: what, [`data-${side}`]: index, title: `${label} (${side} ${index + this.data.starts[isQuery ? 0 : 1]})`,
      ...(isQuery ? { role: "option", id: `${this.id}-query-${index}`, "aria-label": label } : {}) }, ...children);
  }

  // Two columns of tokens; between them a canvas with the lines of all, and over it those of one.
  buildColumns() {
    const { T, S, queries, keys } = this.data, most = Math.max(T, S), crowded = most > 48;
    this.row = crowded ? 13 : most > 28 ? 16 : 21;
    this.width = crowded ? 92 : 116;
    const height = this.row * most, { width } = this, ratio = Math.max(1, window.devicePixelRatio || 1);
    this.place.style.setProperty("--row", `${this.row}px`);
    this.place.style.setProperty("--column", crowded ? "70px" : "96px");
    this.left = focusable("div", { class: "ae-column ae-queries", role: "listbox", "aria-label": "Queries" });
    this.left.append(...queries.map((label, i) => this.token("query", i, "ae-token", make("bdi", {}, label))));
    this.right = make("div", { class: "ae-column ae-keys" });
    this.right.append(...keys.map((label, i) => this.token("key", i, "ae-token", make("bdi", {}, label))));
    this.overview = make("canvas", { width: width * ratio, height: height * ratio });
    Object.assign(this.overview.style, { width: `${width}px`, height: `${height}px` });
    this.ratio = ratio;
    this.lines = make("svg", { width, height, class: "ae-lines", "aria-hidden": "true" });
    this.bars = make("svg", { width: 64, height, class: "ae-bars", "aria-hidden": "true" });
    this.barTitle = make("span");
    this.place.className = "ae-tokens ae-columns";
    this.place.replaceChildren(
      make("span", { class: "ae-end" }, "query"), make("span"), make("span", {}, "key"), this.barTitle,
      this.left, make("div", { class: "ae-middle" }, this.overview, this.lines), this.right, this.bars);
  }

  // Two copies of the picture: on the left one chooses a patch, the right one shows where that looks.
  buildPicture() {
    const [rows, columns] = this.data.grid, special = this.data.T - rows * columns;
    this.url = URL.createObjectURL(new Blob([bytes(this.data.picture)], { type: "image/png" }));
    const half = (side) => {
      const tokens = range(this.data.T).map((i) => this.token(side, i, i < special ? "ae-token" : "ae-patch"));
      for (const token of tokens.slice(0, special)) token.textContent = token.title.split(" (")[0];
      const frame = make("div", { class: "ae-picture" }, ...tokens.slice(special));
      frame.style.cssText = `--picture:url(${this.url});aspect-ratio:${columns}/${rows};` +
        `grid-template:repeat(${rows},1fr)/repeat(${columns},1fr)`;
      return [make("span"), make("div", { class: "ae-special" }, ...tokens.slice(0, special)), frame];
    };
    this.left = focusable("div", { class: "ae-half ae-queries", role: "listbox", "aria-label": "Query patches" });
    this.left.append(...half("query"));
    this.left.firstChild.textContent = "query: choose a patch";
    this.right = make("div", { class: "ae-half ae-keys" }, ...half("key"));
    this.place.className = "ae-tokens ae-pictures";
    this.place.replaceChildren(this.left, this.right);
  }

  colorToken(token, category) {
    token.classList.toggle("ae-colored", category >= 0);
    token.classList.toggle("ae-striped", category >= this.data.headColors.length);
    token.style.setProperty("--category", category < 0 ? "transparent" : this.data.color(category));
    token.dataset.category = category;
  }

  // `active` is the token whose lines are drawn, `held` the held query.
  draw(layer, heads, active, held) {
    const { data } = this;
    for (const token of this.left.querySelectorAll("[data-query]")) {
      const index = +token.dataset.query, on = active?.side === "query" && active.index === index;
      token.classList.toggle("ae-active", on);
      token.classList.toggle("ae-held", index === held);
      token.setAttribute("aria-selected", String(index === held));
      if (on) this.left.setAttribute("aria-activedescendant", token.id);
      if (data.colors) this.colorToken(token, data.colors[layer][index]);
    }
    for (const token of this.right.querySelectorAll("[data-key]"))
      token.classList.toggle("ae-active", active?.side === "key" && token.dataset.key === String(active.index));
    this.title.textContent = data.picture ? data.name(layer, heads[0])
      : `lines of layer ${data.layer_names[layer]}, head${heads.length > 1 ? "s" : ""} ${heads.join(", ")}`;
    if (data.picture) this.drawPatches(layer, heads[0], active);
    else this.drawCurves(layer, heads, active);
  }

  curve(q, k) {
    const from = this.row * (q + 0.5), to = this.row * (k + 0.5), w = this.width;
    return `M0 ${from}C${0.4 * w} ${from} ${0.6 * w} ${to} ${w} ${to}`;
  }

  drawCurves(layer, heads, active) {
    const { data } = this;
    this.overview.style.visibility = active ? "hidden" : "visible";
    this.lines.replaceChildren();
    this.bars.replaceChildren();
    this.barTitle.textContent = "";
    if (!active) return this.drawOverview(layer, heads);
    for (const head of heads)
      for (const [q, k] of data.pairs(active)) {
        const weight = data.weight(layer, head, q, k);
        if (!weight) continue; // masked, or exactly 0
        const strength = data.shade(weight);
        this.lines.append(make("path", {
          d: this.curve(q, k), stroke: data.color(head), "stroke-opacity": strength, "stroke-width": 1.2 + 2.5 * strength,
          "stroke-dasharray": data.dash(head).join(" "), "data-head": head, "data-q": q, "data-k": k,
          "data-weight": weight }));
      }
    if (active.side === "query") this.drawBars(layer, heads, active.index);
  }

  // Beside each key its weight: a bar with a part for each head, and the number, or the mean of the heads.
  drawBars(layer, heads, q) {
    this.barTitle.textContent = heads.length > 1 ? `mean of ${heads.length}` : "weight";
    for (let k = 0; k < this.data.S; k++) {
      const weights = heads.map((head) => this.data.weight(layer, head, q, k)), y = this.row * (k + 0.5);
      if (weights[0] === null) {
        this.bars.append(make("text", { x: 0, y, class: "ae-masked" }, "masked"));
        continue;
      }
      let x = 0;
      heads.forEach((head, i) => {
        const width = (32 / heads.length) * this.data.shade(weights[i]);
        const place = { x, y: this.row * k + 2, width, height: this.row - 4, fill: this.data.color(head) };
        if (width > 0.2) this.bars.append(make("rect", place));
        x += width;
      });
      const mean = weights.reduce((sum, weight) => sum + weight, 0) / heads.length;
      if (mean >= 0.005) this.bars.append(make("text", { x: x + 4, y }, mean.toFixed(2)));
    }
  }

  // At rest: the lines of all queries, the faint ones left out.
  drawOverview(layer, heads) {
    const { data, ratio } = this, context = this.overview.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.overview.width, this.overview.height);
    for (const head of heads) {
      context.strokeStyle = data.color(head);
      context.setLineDash(data.dash(head));
      for (let q = 0; q < data.T; q++)
        for (let k = 0; k < data.S; k++) {
          const weight = data.weight(layer, head, q, k);
          if (weight === null || weight < FAINT) continue;
          context.globalAlpha = 0.85 * data.shade(weight);
          context.lineWidth = 1 + 1.5 * weight;
          context.stroke(new Path2D(this.curve(q, k)));
        }
    }
  }

  // Over each patch of the right picture the colour of its weight; before there is a query, the mean of all.
  drawPatches(layer, head, active) {
    const { data } = this, queries = active?.side === "query" ? [active.index] : range(data.T);
    for (const patch of this.right.querySelectorAll("[data-key]")) {
      const weights = queries.map((q) => data.weight(layer, head, q, +patch.dataset.key));
      const masked = weights.every((weight) => weight === null);
      const mean = weights.reduce((sum, weight) => sum + (weight ?? 0), 0) / queries.length;
      patch.dataset.weight = masked ? "masked" : mean;
      patch.style.setProperty("--weight", masked ? "transparent" : data.rgb(mean));
      const said = number(masked ? null : mean);
      if (patch.classList.contains("ae-token")) patch.textContent = `${data.keys[patch.dataset.key]} ${said}`;
    }
    this.right.firstChild.textContent = queries.length === 1 ? "keys: where it looks" : "keys: mean over all queries";
  }
}
