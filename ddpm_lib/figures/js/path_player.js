// The front end of PathPlayer (widgets.py): curves over a slider. An anywidget module, no library.
// A model is anything with get, set, on, off and save_changes: Jupyter's, or assets/widget-host.js in the built page.

const SVG = "http://www.w3.org/2000/svg";
const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"]; // Okabe and Ito: safe for the colour-blind
const HEIGHT = 240, LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 34;
const STEP_MS = 90;

const STYLE = `
.path-player { color: var(--pst-color-text-base, var(--jp-content-font-color1, currentColor)); margin: 1em 0; max-width: 46em; font-size: .95em; }
.path-player svg { display: block; width: 100%; height: ${HEIGHT}px; }
.path-player svg text { fill: currentColor; font-size: 12px; }
.path-player .axis { stroke: currentColor; opacity: .35; }
.path-player polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.path-player .title { font-weight: 600; margin: 0 0 .2em; }
.path-player .legend { display: flex; flex-wrap: wrap; gap: .2em 1.2em; margin: 0 0 .2em; padding: 0; list-style: none; }
.path-player .legend li { margin: 0; }
.path-player .legend span { display: inline-block; width: 1.4em; height: .25em; margin-right: .4em; vertical-align: middle; }
.path-player .controls { display: flex; flex-wrap: wrap; align-items: center; gap: .4em .8em; }
.path-player input { flex: 1 1 10em; min-width: 8em; height: 2em; margin: 0; accent-color: #0072b2; }
.path-player button { min-width: 5.5em; padding: .35em .8em; font: inherit; color: inherit; background: transparent;
  border: 1px solid currentColor; border-radius: .3em; cursor: pointer; }
.path-player output { flex: 0 1 auto; min-width: 9em; font-variant-numeric: tabular-nums; padding: 0; }
.path-player button:focus-visible, .path-player input:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
@media print { .path-player .controls { display: none; } }
`;

function node(parent, tag, attributes = {}, text = "") {
  const svg = ["svg", "polyline", "line", "text", "g"].includes(tag);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  parent.append(element);
  return element;
}

// DataView (both hosts send one) of int16 -> per curve an array of frames, each an array of values.
function decode(view, meta) {
  const scale = (meta.high - meta.low) / 65534;
  let at = 0;
  return meta.curves.map((curve) =>
    Array.from({ length: curve.frames }, () =>
      Array.from({ length: meta.length }, () => {
        const value = meta.low + (view.getInt16(at, true) + 32767) * scale;
        at += 2;
        return value;
      })));
}

const short = (value) => String(Number(value.toPrecision(3)));

function render({ model, el }) {
  const meta = model.get("meta");
  const curves = decode(model.get("values"), meta);
  const colors = meta.curves.map((curve, i) => curve.color || PALETTE[i % PALETTE.length]);
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const last = meta.frames - 1;

  const root = node(el, "div", { class: "path-player", role: "group", "aria-label": meta.title || meta.description });
  node(root, "style", {}, STYLE);
  if (meta.title) node(root, "p", { class: "title" }, meta.title);
  const legend = node(root, "ul", { class: "legend" });
  meta.curves.forEach((curve, i) => {
    if (!curve.name) return; // one of several that share a name
    const item = node(legend, "li");
    node(item, "span", { style: `background:${colors[i]}`, "aria-hidden": "true" });
    item.append(curve.name);
  });
  const svg = node(root, "svg", { role: "img", "aria-label": meta.description });
  const controls = node(root, "div", { class: "controls" });
  const button = node(controls, "button", { type: "button" });
  const slider = node(controls, "input", {
    type: "range", min: 0, max: last, step: 1, "aria-label": meta.title ? `${meta.title}: frame` : "frame",
  });
  const label = node(controls, "output");

  let lines = [];
  let timer = null;
  const frame = () => Math.min(Math.max(model.get("frame"), 0), last);

  // The axes and empty lines, for the width there is.
  function layout() {
    const width = Math.max(svg.clientWidth || el.clientWidth || 600, 200);
    const [x0, x1, y0, y1] = [LEFT, width - RIGHT, HEIGHT - BOTTOM, TOP];
    const pad = 0.04 * (meta.high - meta.low);
    const [low, high] = [meta.low - pad, meta.high + pad];
    const sx = (x) => x0 + ((x - meta.x[0]) / (meta.x[1] - meta.x[0] || 1)) * (x1 - x0);
    const sy = (y) => y0 + ((y - low) / (high - low)) * (y1 - y0);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.replaceChildren();
    node(svg, "line", { class: "axis", x1: x0, x2: x1, y1: y0, y2: y0 });
    node(svg, "line", { class: "axis", x1: x0, x2: x0, y1: y0, y2: y1 });
    if (low < 0 && high > 0) node(svg, "line", { class: "axis", x1: x0, x2: x1, y1: sy(0), y2: sy(0), "stroke-dasharray": "3 4" });
    const marks = low < 0 && high > 0 ? [meta.low, 0, meta.high] : [meta.low, meta.high];
    for (const y of marks) node(svg, "text", { x: x0 - 5, y: sy(y) + 4, "text-anchor": "end" }, short(y));
    node(svg, "text", { x: x0, y: y0 + 16, "text-anchor": "start" }, short(meta.x[0]));
    node(svg, "text", { x: x1, y: y0 + 16, "text-anchor": "end" }, short(meta.x[1]));
    if (meta.x_label) node(svg, "text", { x: (x0 + x1) / 2, y: y0 + 16, "text-anchor": "middle" }, meta.x_label);
    const step = (meta.x[1] - meta.x[0]) / Math.max(meta.length - 1, 1);
    const place = (i) => sx(meta.places.length ? meta.places[i] : meta.x[0] + i * step);
    lines = colors.map((color) => node(svg, "polyline", { stroke: color }));
    lines.draw = (k) => lines.forEach((line, c) => {
      const values = curves[c][Math.min(k, curves[c].length - 1)];
      line.setAttribute("points", values.map((y, i) => `${place(i).toFixed(1)},${sy(y).toFixed(1)}`).join(" "));
    });
    draw();
  }

  function draw() {
    const k = frame();
    lines.draw(k);
    slider.value = k;
    slider.setAttribute("aria-valuetext", meta.labels[k]);
    label.textContent = meta.labels[k];
  }

  function show(k) {
    model.set("frame", k);
    model.save_changes();
    draw();
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    button.textContent = still.matches ? "Next" : "Play";
  }

  // One press plays to the end and stops there. Who prefers reduced motion gets one frame a press.
  button.addEventListener("click", () => {
    if (timer !== null) return pause();
    const from = frame() === last ? 0 : frame();
    if (still.matches) return show(frame() === last ? 0 : from + 1);
    show(from);
    button.textContent = "Pause";
    timer = setInterval(() => {
      if (frame() >= last) return pause();
      show(frame() + 1);
    }, STEP_MS);
  });
  slider.addEventListener("input", () => { pause(); show(Number(slider.value)); });
  still.addEventListener("change", pause);
  model.on("change:frame", draw);
  const size = new ResizeObserver(layout);
  size.observe(svg);
  pause();
  layout();

  return () => { clearInterval(timer); size.disconnect(); still.removeEventListener("change", pause); model.off("change:frame", draw); };
}

export default { render };
