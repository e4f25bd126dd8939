// What the interactive figures share: elements, the look, a drawing of curves over x. Put in front of their own modules.
const HEIGHT = 240, LEFT = 40, RIGHT = 8, TOP = 8, BOTTOM = 34;
const SIGNAL = "#0072b2", NOISE = "#8a8a8a", MODEL = "#d55e00", EXACT = "currentColor"; // as in plots.py

const LOOK = `
.stage { color: var(--pst-color-text-base, var(--jp-content-font-color1, currentColor)); margin: 1em 0; max-width: 46em;
  font-size: .95em; }
.stage svg { display: block; width: 100%; height: ${HEIGHT}px; }
.stage svg text { fill: currentColor; font-size: 12px; }
.stage .axis { stroke: currentColor; opacity: .35; }
.stage polyline { fill: none; stroke-linejoin: round; }
.stage .here { stroke: currentColor; stroke-width: 1.2; }
.stage rect { fill: currentColor; opacity: .1; }
.stage p { margin: 0 0 .4em; }
.stage .title { font-weight: 600; }
.stage .legend { display: flex; flex-wrap: wrap; gap: .1em 1.2em; margin: 0 0 .2em; padding: 0; list-style: none; }
.stage .legend li { margin: 0; }
.stage .legend svg { display: inline-block; width: 1.8em; height: .6em; margin-right: .4em; }
.stage .controls { display: flex; flex-wrap: wrap; align-items: end; gap: .5em 1em; margin: .4em 0; }
.stage label { display: flex; flex-direction: column; gap: .1em; font-size: .92em; }
.stage .pair { display: flex; align-items: end; gap: .5em 1em; flex: 1 1 14em; }
.stage label.tick { flex-direction: row; align-items: center; gap: .4em; white-space: nowrap; }
.stage label.wide { flex: 1 1 11em; }
.stage input, .stage select, .stage button { font: inherit; color: inherit; accent-color: ${SIGNAL}; margin: 0; }
.stage input[type=range] { width: 100%; min-width: 7em; height: 2em; }
.stage input[type=number] { width: 6em; }
.stage input[type=checkbox], .stage input[type=radio] { width: 1.1em; height: 1.1em; }
.stage input[type=number], .stage select, .stage button { min-height: 2.2em; padding: .2em .6em; border: 1px solid currentColor;
  border-radius: .3em; background: transparent; }
.stage select option { color: #111; background: #fff; }
.stage button { cursor: pointer; }
.stage button.main { color: #fff; background: ${SIGNAL}; border-color: ${SIGNAL}; font-weight: 600; }
.stage :is(button, input, select):focus-visible { outline: 2px solid ${SIGNAL}; outline-offset: 2px; }
.stage [hidden] { display: none !important; }
.stage .number { font-variant-numeric: tabular-nums; }
@media print { .stage .controls { display: none; } }
`;

function node(parent, tag, attributes = {}, text = "") {
  const svg = ["svg", "polyline", "line", "text", "rect"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  parent.append(element);
  return element;
}

// A labelled control; a range has its value beside its name, as `say` puts it.
function field(parent, name, tag, attributes, say = null, look = "") {
  const label = node(parent, "label", { class: look });
  const text = node(label, "span", { class: "number" }, name);
  const control = node(label, tag, attributes);
  const tell = () => {
    if (!say) return;
    text.textContent = `${name} ${say(Number(control.value))}`;
    control.setAttribute("aria-valuetext", say(Number(control.value)));
  };
  control.addEventListener("input", tell);
  tell();
  return Object.assign(control, { tell });
}

function choice(parent, name, options, look = "") {
  const select = field(parent, name, "select", {}, null, look);
  for (const [value, text] of Object.entries(options)) node(select, "option", { value }, text);
  return select;
}

const root = (el, title) => {
  const group = node(el, "div", { class: "stage", role: "group", "aria-label": title });
  node(group, "style", {}, LOOK);
  node(group, "p", { class: "title" }, title);
  return group;
};

// A drawing over the places x: show({ curves: [{ name, y, color, dash, width }], holes, low, high, says, marks, here }).
// marks: [place, text] on the axis, where the ends of x do not say it; here: a place to point at; ticks: [y, text].
function drawing(parent, x, xLabel) {
  const legend = node(parent, "ul", { class: "legend" }), svg = node(parent, "svg", { role: "img" });
  let last = null, width = 0;
  const first = x[0], end = x.at(-1), step = (end - first) / (x.length - 1);
  const sx = (v) => LEFT + ((v - first) / (end - first)) * (width - RIGHT - LEFT);
  const stroke = ({ color, dash = "none", width: thick = 1.8 }) =>
    ({ stroke: color, "stroke-dasharray": dash, "stroke-width": thick, fill: "none" });

  function show(picture) {
    last = picture;
    const { curves, holes = [], low, high, says, here } = picture;
    const ticks = picture.ticks ?? [low, 0, high].map((y) => [y, y.toFixed(1)]);
    const marks = picture.marks ?? [[first, String(first)], [end, String(end)]];
    width = Math.max(svg.clientWidth || parent.clientWidth || 600, 200);
    const base = HEIGHT - BOTTOM, sy = (v) => base + ((v - low) / (high - low)) * (TOP - base);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute("aria-label", says);
    svg.replaceChildren();
    legend.replaceChildren();
    x.forEach((v, i) => holes[i] && node(svg, "rect", { x: sx(v - step / 2), y: TOP, width: sx(step) - sx(0), height: base - TOP }));
    node(svg, "line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: base, y2: base });
    node(svg, "line", { class: "axis", x1: LEFT, x2: LEFT, y1: base, y2: TOP });
    for (const [y, text] of ticks) {
      node(svg, "line", { class: "axis", x1: LEFT - 4, x2: LEFT, y1: sy(y), y2: sy(y) });
      node(svg, "text", { x: LEFT - 6, y: sy(y) + (y === high ? 9 : 4), "text-anchor": "end" }, text.replace("-", "−"));
    }
    for (const [place, text] of marks) {
      const anchor = place === first ? "start" : place === end ? "end" : "middle";
      node(svg, "text", { x: sx(place), y: base + 16, "text-anchor": anchor }, text.replace("-", "−"));
    }
    if (here !== undefined) node(svg, "line", { class: "here", x1: sx(here), x2: sx(here), y1: base, y2: TOP });
    node(svg, "text", { x: (LEFT + width - RIGHT) / 2, y: base + (picture.marks ? 30 : 16), "text-anchor": "middle" }, xLabel);
    for (const curve of curves) {
      const item = curve.name ? node(legend, "li") : null; // curves of one kind share an entry
      if (item) node(node(item, "svg", { viewBox: "0 0 24 8", "aria-hidden": "true" }), "line", { x1: 0, x2: 24, y1: 4, y2: 4, ...stroke(curve) });
      item?.append(curve.name);
      let run = []; // a curve has a gap where it is not a number
      for (let i = 0; i <= x.length; i++) {
        if (i < x.length && Number.isFinite(curve.y[i])) run.push(`${sx(x[i]).toFixed(1)},${sy(curve.y[i]).toFixed(1)}`);
        else if (run.length) { node(svg, "polyline", { points: run.join(" "), ...stroke(curve) }); run = []; }
      }
    }
  }

  // The sample under a pointer.
  const at = (event) => {
    const place = (event.clientX - svg.getBoundingClientRect().left - LEFT) / (width - RIGHT - LEFT);
    return Math.min(Math.max(Math.round(place * (x.length - 1)), 0), x.length - 1);
  };
  const size = new ResizeObserver(() => last && svg.clientWidth && svg.clientWidth !== width && show(last));
  size.observe(svg);
  return { x, svg, show, at, close: () => size.disconnect() };
}
