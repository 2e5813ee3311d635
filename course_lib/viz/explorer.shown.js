// Part 1 of the attention explorer: small helpers, and the window of maps as it arrived from explorer.py.

const MASKED = 65535, FULL = 65534; // in the weights that arrive: a masked pair, and a weight of 1
const SVG = new Set(["svg", "g", "path", "rect", "text"]);

function make(tag, attributes = {}, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// What takes the keyboard: JupyterLab would keep the arrow keys for itself.
function focusable(tag, attributes, ...children) {
  return make(tag, { tabindex: 0, "data-lm-suppress-shortcuts": "true", ...attributes }, ...children);
}

// A label between other words: it must not turn them around where it is written from right to left.
const word = (label) => make("bdi", { class: "ae-word" }, label);
const range = (count) => [...Array(count).keys()];
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
const number = (weight) => (weight === null ? "masked" : weight.toFixed(weight > 0 && weight < 0.01 ? 4 : 2));

// A copy of what arrived: its place in a message need not be a multiple of two bytes.
function bytes(view) {
  return view.buffer ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : view;
}

class Shown {
  constructor(shown, style) {
    Object.assign(this, shown); // queries, keys, starts, totals, layer_names, note, perhaps colors and picture
    this.raw = new Uint16Array(bytes(shown.weights));
    [this.L, this.H, this.T, this.S] = shown.shape;
    this.palette = new Uint8Array(bytes(style.palette));
    this.headColors = style.heads;
    this.byRoot = false; // colours and lines by the root of the weight, so that small ones can be seen
  }

  // A weight in 0..1, or null for a masked pair.
  weight(layer, head, q, k) {
    const raw = this.raw[((layer * this.H + head) * this.T + q) * this.S + k];
    return raw === MASKED ? null : raw / FULL;
  }

  // How strongly a weight is drawn.
  shade(weight) {
    return this.byRoot ? Math.sqrt(weight) : weight;
  }

  rgb(weight) {
    const at = 3 * Math.round(255 * this.shade(weight));
    return `rgb(${this.palette[at]},${this.palette[at + 1]},${this.palette[at + 2]})`;
  }

  // A pixel for each pair; masked ones stay transparent, and the hatching behind the canvas is seen.
  paint(canvas, layer, head) {
    const image = new ImageData(this.S, this.T), from = (layer * this.H + head) * this.T * this.S, { data } = image;
    for (let i = 0, to = 0; i < this.T * this.S; i++, to += 4) {
      const raw = this.raw[from + i];
      if (raw === MASKED) continue;
      const at = 3 * Math.round(255 * this.shade(raw / FULL));
      data[to] = this.palette[at];
      data[to + 1] = this.palette[at + 1];
      data[to + 2] = this.palette[at + 2];
      data[to + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // The pairs that a token takes part in, as [query, key].
  pairs({ side, index }) {
    return range(side === "query" ? this.S : this.T).map((other) => (side === "query" ? [index, other] : [other, index]));
  }

  name(layer, head) {
    return `layer ${this.layer_names[layer]}, head ${head}`;
  }

  color(index) {
    return this.headColors[index % this.headColors.length];
  }

  // There are six colours; the heads after them have broken lines.
  dash(head) {
    return [[], [6, 3], [2, 3]][Math.min(Math.floor(head / this.headColors.length), 2)];
  }
}
