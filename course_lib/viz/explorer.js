// Part 4 of the attention explorer (explorer.py puts the parts together, one module without imports, so that nothing is
// fetched): what is chosen, by pointer, keyboard or Python, and the text that is typed.

const DEBOUNCE = 400; // ms after the last key before a text is sent to the model
let instances = 0; // ids must be unique in the page, also where a widget is displayed twice

class Explorer {
  constructor(model, el) {
    this.model = model;
    this.hover = null; // what the pointer or the keyboard is on: {side: "query" | "key", index in the window, cell}
    this.byRoot = Boolean(model.get("_shown").picture); // a patch has many neighbours: all its weights are small
    this.bound = [];
    this.build(el, `attention-${++instances}`);
    this.listen();
    this.load();
    this.on("_shown", () => this.load());
    for (const name of ["layer", "head", "heads", "query"]) this.on(name, () => this.draw());
    this.on("_answer", () => this.answered());
    this.on("text", () => this.textFromPython());
  }

  on(name, act) {
    this.bound.push([`change:${name}`, act]);
    this.model.on(`change:${name}`, act);
  }

  stop() {
    clearTimeout(this.timer);
    for (const [event, act] of this.bound) this.model.off(event, act);
    this.tokens.forget();
  }

  set(values) {
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    this.model.save_changes();
  }

  get computing() {
    return !this.busy.hidden;
  }
  get layer() {
    return clamp(this.model.get("layer"), 0, this.data.L - 1);
  }
  get head() {
    return clamp(this.model.get("head"), 0, this.data.H - 1);
  }
  // Heads whose lines are drawn: those of the filter, or the selected one.
  get heads() {
    const heads = this.model.get("heads").filter((head) => head < this.data.H);
    return heads.length ? heads : [this.head];
  }
  // The held query in the window; null if there is none or it lies outside.
  get held() {
    const query = this.model.get("query") ?? -1, local = query - this.data.starts[0];
    return query >= 0 && local >= 0 && local < this.data.T ? local : null;
  }
  // What lines are drawn of: the held query, else what the pointer is on.
  get active() {
    return this.held === null ? this.hover : { side: "query", index: this.held };
  }

  // --- the parts, and what is done to them ---------------------------------------------------------------------------

  build(el, id) {
    this.maps = new Maps(id);
    this.tokens = new Tokens(id);
    this.busy = make("span", { class: "ae-busy", hidden: "" }, "computing …");
    this.input = focusable("textarea", { rows: 2, spellcheck: "false", dir: "auto", "aria-label": "Text for the model" });
    this.input.value = this.asked = this.model.get("text");
    this.error = make("div", { class: "ae-error", role: "alert" });
    this.note = make("div", { class: "ae-note" });
    this.pagers = make("div", { class: "ae-pagers" });
    this.chips = make("div", { class: "ae-chips", role: "group", "aria-label": "Heads whose lines are drawn" });
    this.scale = focusable("button", {
      class: "ae-button", type: "button", "aria-pressed": String(this.byRoot),
      title: "colours and lines by the square root of the weight" }, "show small weights");
    this.readout = make("div", { class: "ae-readout", role: "status", "aria-live": "polite" });
    const typed = "text" in this.model.get("_answer") ? [make("label", {}, "your text ", this.busy), this.input] : [];
    const panel = (...parts) => make("div", { class: "ae-panel" }, ...parts);
    this.el = make("div", { class: "course-attention", role: "group", "aria-label": "Attention explorer" },
      make("div", { class: "ae-text" }, ...typed), this.error, this.note, this.pagers,
      make("div", { class: "ae-panels" },
        make("div", { class: "ae-maps" },
          panel(make("div", { class: "ae-title" }, "layers (rows) and heads (columns)"), this.maps.grid, this.chips),
          panel(this.maps.heatTitle, this.maps.heat, make("div", { class: "ae-scale" }, this.maps.legend, this.scale))),
        panel(this.tokens.title, this.readout, this.tokens.place, this.tokens.categories)),
      make("div", { class: "ae-help" },
        "Point at a token or a cell; click holds it, Esc lets go. Tab goes from part to part, the arrow keys choose " +
        "there; Enter holds a token, or draws the lines of one more head."));
    el.append(this.el);
  }

  listen() {
    this.el.addEventListener("keydown", (event) => {
      if (event.target !== this.input && !event.ctrlKey && !event.metaKey && !event.altKey) this.key(event);
      if (event.key !== "Tab") event.stopPropagation(); // keys that are meant for the explorer stay in it
    });
    this.input.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.ask(), DEBOUNCE);
    });
    this.el.addEventListener("click", (event) => this.click(event));
    this.tokens.place.addEventListener("mouseover", (event) => this.point(tokenAt(event.target)));
    this.tokens.place.addEventListener("mouseleave", () => this.point(null));
    this.maps.heat.addEventListener("mousemove", (event) => this.pointCell(this.maps.cellAt(event)));
    this.maps.heat.addEventListener("mouseleave", () => this.pointCell(null));
  }

  click(event) {
    const part = event.target.closest("[data-layer], [data-chip], [data-move], [data-query], .ae-button, .ae-cells");
    if (!part) return;
    const cell = part === this.maps.cells && this.maps.cellAt(event);
    if (part.dataset.layer) this.set({ layer: +part.dataset.layer, head: +part.dataset.head });
    else if (part.dataset.chip) this.toggle(part.dataset.chip);
    else if (part.dataset.move) this.move([+part.dataset.axis], +part.dataset.move);
    else if (part.dataset.query) this.hold(+part.dataset.query);
    else if (part === this.scale) this.rescale();
    else if (cell) this.hold(cell[0]);
    this.draw();
  }

  key(event) {
    const { key, target } = event, inGrid = this.maps.grid.contains(target), inTokens = this.tokens.left.contains(target);
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
    const enter = key === "Enter" || key === " ";
    if (key === "[" || key === "]") this.move([0, 1], key === "[" ? -1 : 1);
    else if (key === "Escape") this.release();
    else if (inGrid && step)
      this.set({
        layer: clamp(this.layer + step[0], 0, this.data.L - 1),
        head: clamp(this.head + step[1], 0, this.data.H - 1),
      });
    else if (inGrid && enter) this.toggle(this.head);
    else if (inTokens && (step || key === "Home" || key === "End")) this.step(key, step);
    else if (inTokens && enter && this.active?.side === "query") this.hold(this.active.index);
    else return;
    event.preventDefault();
    this.draw();
  }

  // The keyboard goes from query to query, in a picture from patch to patch; a held one moves along.
  step(key, step) {
    const last = this.data.T - 1, now = this.active?.side === "query" ? this.active.index : null;
    const by = step ? step[0] * (this.data.grid?.[1] ?? 1) + step[1] : 0;
    const index = key === "Home" ? 0 : key === "End" ? last : now === null ? 0 : clamp(now + by, 0, last);
    this.hover = { side: "query", index };
    if (this.held !== null && this.held !== index) this.hold(index);
  }

  hold(index) {
    const query = this.held === index ? null : index + this.data.starts[0];
    this.hover = { side: "query", index };
    if (!this.computing) this.set({ query }); // the maps that are on their way may not have it
  }

  release() {
    this.hover = null;
    this.set({ query: null });
  }

  point(what) {
    if (what?.side === this.hover?.side && what?.index === this.hover?.index) return;
    this.hover = what;
    this.drawActive();
  }

  pointCell(cell) {
    this.maps.showTip(cell, cell && this.data.weight(this.layer, this.head, ...cell));
    if (String(cell) === String(this.hover?.cell)) return;
    this.hover = cell && { side: "query", index: cell[0], cell };
    this.drawActive();
  }

  toggle(chip) {
    const all = range(this.data.H), now = this.model.get("heads");
    if (chip === "all") this.set({ heads: now.length === all.length ? [] : all });
    else this.set({ heads: all.filter((head) => now.includes(head) !== (head === +chip)) });
  }

  // By half a window, along the queries (axis 0), the keys (axis 1) or both.
  move(axes, direction) {
    if (this.computing) return;
    const { T, S, starts, totals } = this.data, moved = {};
    for (const axis of axes) {
      const size = axis ? S : T, start = starts[axis] + direction * Math.max(1, Math.floor(size / 2));
      moved[axis ? "key_start" : "query_start"] = clamp(start, 0, totals[axis] - size);
    }
    this.set(moved);
  }

  rescale() {
    this.data.byRoot = this.byRoot = !this.byRoot;
    this.scale.setAttribute("aria-pressed", this.byRoot);
    this.maps.repaint();
  }

  // --- a text of one's own -------------------------------------------------------------------------------------------

  ask() {
    // While the model is at work only the newest text waits, however fast one types.
    if (this.computing || this.input.value === this.asked) return;
    this.asked = this.input.value;
    this.busy.hidden = false;
    this.set({ text: this.asked });
  }

  answered() {
    const { text, error } = this.model.get("_answer");
    this.error.textContent = error ? `${error} The map stays as it was.` : "";
    if (text !== this.asked) return;
    this.busy.hidden = true;
    this.ask();
  }

  textFromPython() {
    const text = this.model.get("text");
    if (text !== this.asked) this.input.value = this.asked = text;
  }

  // --- drawing -------------------------------------------------------------------------------------------------------

  load() {
    const start = performance.now();
    this.data = new Shown(this.model.get("_shown"), this.model.get("_style"));
    this.data.byRoot = this.byRoot;
    this.hover = null;
    this.maps.load(this.data);
    this.tokens.load(this.data);
    this.draw();
    this.el.getBoundingClientRect(); // the time that is measured includes the layout
    this.el.dataset.redrawMs = (performance.now() - start).toFixed(1);
    this.el.dataset.count = this.data.count;
  }

  draw() {
    this.maps.draw(this.layer, this.head, this.heads);
    this.drawChips();
    this.note.textContent = this.data.note;
    this.drawPagers();
    this.drawActive();
  }

  drawActive() {
    this.tokens.draw(this.layer, this.data.picture ? [this.head] : this.heads, this.active, this.held);
    this.maps.mark(this.active, this.hover?.cell);
    this.drawReadout();
  }

  drawChips() {
    this.chips.hidden = Boolean(this.data.picture); // which shows one head
    const now = this.model.get("heads"), focused = document.activeElement?.dataset?.chip;
    const had = this.chips.contains(document.activeElement); // they are made anew
    const chip = (name, pressed, style) => focusable("button", {
      type: "button", class: "ae-chip", "data-chip": name, "aria-pressed": String(pressed), style }, name);
    this.chips.replaceChildren("draw lines of",
      ...range(this.data.H).map((head) => chip(head, now.includes(head), `--head:${this.data.color(head)}`)),
      chip("all", now.length === this.data.H, ""));
    if (had) this.chips.querySelector(`[data-chip="${focused}"]`)?.focus();
  }

  drawPagers() {
    const pager = (name, axis) => {
      const { starts, totals } = this.data, size = axis ? this.data.S : this.data.T, end = starts[axis] + size;
      const button = (direction, sign, off) => focusable("button", {
        type: "button", class: "ae-button", "data-axis": axis, "data-move": direction, disabled: off ? "" : null,
        "aria-label": `${direction < 0 ? "earlier" : "later"} ${name}` }, sign);
      return size === totals[axis] ? [] : make("span", { class: "ae-pager" }, button(-1, "◀", starts[axis] === 0),
        ` ${name} ${starts[axis] + 1}–${end} of ${totals[axis]} `, button(1, "▶", end === totals[axis]));
    };
    const pagers = [pager("queries", 0), pager("keys", 1)].flat();
    this.pagers.replaceChildren();
    if (pagers.length) this.pagers.append("A long input, shown in part: ", ...pagers, " [ and ] move both");
  }

  // The same in words, for everybody and for a screen reader.
  drawReadout() {
    const { data, active } = this, heads = data.picture ? [this.head] : this.heads;
    if (!active) {
      const outside = (this.model.get("query") ?? null) !== null;
      this.readout.textContent = outside ? "The held query lies outside the window." : "Point at a token.";
      return;
    }
    const isQuery = active.side === "query", [own, others] = isQuery ? [data.queries, data.keys] : [data.keys, data.queries];
    const mean = (q, k) => heads.reduce((sum, head) => sum + (data.weight(this.layer, head, q, k) ?? 0), 0) / heads.length;
    const weights = data.pairs(active).map(([q, k]) => [mean(q, k), isQuery ? k : q]);
    const best = weights.filter(([weight]) => weight > 0).sort((a, b) => b[0] - a[0]).slice(0, 3);
    const sum = weights.reduce((total, [weight]) => total + weight, 0);
    const listed = best.flatMap(([weight, i], n) => [n ? ", " : "", word(others[i]), ` ${number(weight)}`]);
    this.readout.replaceChildren(
      heads.length > 1 ? `Mean of heads ${heads.join(", ")}: ` : `Head ${heads[0]}: `,
      word(own[active.index]), this.held === null ? "" : " (held)", isQuery ? " looks at " : " is looked at by ",
      ...(listed.length ? listed : ["nothing"]),
      isQuery && data.S < data.totals[1] ? `. The keys in the window hold ${number(sum)} of its weight.` : ".");
  }
}

// The token that an element belongs to: {side, index}, or null.
function tokenAt(element) {
  const token = element.closest("[data-query], [data-key]");
  if (!token) return null;
  return token.dataset.query ? { side: "query", index: +token.dataset.query } : { side: "key", index: +token.dataset.key };
}

export default {
  render({ model, el }) {
    const explorer = new Explorer(model, el);
    return () => explorer.stop();
  },
};
