// The front end of Sampler (sampler_widget.py), with stage.js and noise.js before it: noise becomes a wavelet, or a hole is filled.
// In a built page a worker computes, from a script that is loaded when it is first needed; with a kernel, Python does.

const SAMPLERS = {
  dpmpp_2m_sde: "SDE-DPM-Solver++(2M)", dpmpp_2m: "DPM-Solver++(2M)", ddim: "DDIM", ancestral: "ancestral (DDPM)",
  heun: "Heun",
};
const FILM_MS = 2200; // what a film should last
const SILENCE_MS = 15000; // a kernel that does not answer within this time is not there

// The page's own engine: request -> replies, by a worker.
async function inPage(model, name, hear) {
  await model.script(name);
  const { source, manifest, weights } = globalThis.ddpmModels[name];
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url); // no module worker: from disk Chromium starts none
  worker.onmessage = ({ data }) => hear(data);
  worker.onerror = (event) => hear({ error: event.message || "the worker did not start" });
  const bytes = Uint8Array.from(atob(weights), (letter) => letter.charCodeAt(0)).buffer;
  worker.postMessage({ manifest, weights: bytes }, [bytes]);
  return { ask: (request) => worker.postMessage(request), close: () => { worker.terminate(); URL.revokeObjectURL(url); } };
}

// The same with a kernel: Python replies, with a curve as float32 in a buffer.
function inKernel(model, hear) {
  let timer = null;
  const reply = ({ curve, ...content }, buffers) => {
    clearTimeout(timer);
    const view = buffers?.[0];
    if (view) content[curve] = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
    hear(content);
  };
  model.on("msg:custom", reply);
  return {
    ask(request) {
      clearTimeout(timer);
      timer = setTimeout(() => hear({ error: "no kernel answers; run this cell again" }), SILENCE_MS);
      model.send(request);
    },
    close: () => { clearTimeout(timer); model.off("msg:custom", reply); },
  };
}

function render({ model, el }) {
  const { title, names, low, high, grid: [first, last, L], conditions, script, seed: firstSeed } = model.get("meta");
  const x = Array.from({ length: L }, (_, i) => first + ((last - first) * i) / (L - 1));
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const group = root(el, title);

  // --- the controls ---
  const modes = node(group, "div", { class: "controls", role: "radiogroup", "aria-label": "what to do" });
  const mode = (name, checked) => {
    const tick = node(modes, "label", { class: "tick" });
    const radio = node(tick, "input", { type: "radio", name: `mode-${script}-${Math.random()}` });
    radio.checked = checked;
    tick.append(name);
    return radio;
  };
  const make = mode("from noise to a wavelet", true), repair = mode("fill the holes of a signal", false);
  repair.name = make.name;
  const stage = drawing(group, x, "x");
  const progress = node(group, "p", { class: "number", "aria-hidden": "true" });
  const verdict = node(group, "p", { role: "status", class: "number verdict" });
  const row = node(group, "div", { class: "controls" });
  const go = node(row, "button", { type: "button", class: "main" });
  const another = node(row, "button", { type: "button" }, "Another");
  const sampler = choice(row, "sampler", SAMPLERS);
  const steps = field(row, "steps", "input", { type: "range", min: 2, max: 100, value: 20 }, (v) => `${v}`, "wide");
  const seed = field(row, "seed", "input", { type: "number", min: 0, max: 99999, step: 1, value: firstSeed });
  const wishes = node(group, "div", { class: "controls", role: "group", "aria-label": "ask for" });
  const wanted = conditions.map((name) => {
    const p = names.indexOf(name), pair = node(wishes, "div", { class: "pair" });
    const tick = node(pair, "label", { class: "tick" });
    const asked = node(tick, "input", { type: "checkbox" });
    tick.append(`ask for ${name}`);
    const value = field(pair, name, "input", {
      type: "range", min: low[p], max: high[p], step: (high[p] - low[p]) / 60, value: (low[p] + high[p]) / 2,
    }, (v) => (asked.checked ? `= ${v.toFixed(2)}` : "not asked"), "wide");
    value.addEventListener("input", () => { asked.checked = true; value.tell(); });
    asked.addEventListener("change", value.tell);
    return () => (asked.checked ? Number(value.value) : null);
  });
  const holes = node(group, "div", { class: "controls", role: "group", "aria-label": "holes" });
  const from = field(holes, "hole from x =", "input", { type: "range", min: 0, max: L - 1, value: 0 }, (v) => x[v].toFixed(2), "wide");
  const wide = field(holes, "width", "input", { type: "range", min: 0, max: L / 2, value: 14 }, (v) => `${v} samples`, "wide");
  const mend = node(holes, "button", { type: "button" }, "Undo what was painted");
  const note = node(group, "p", {}, "Paint holes with the pointer, or set one with the sliders. In each step the estimate is"
    + " moved towards what is known by Kalman's update with the covariance of Gaussian data: an approximation.");

  // --- what is shown ---
  let signal = null, painted = new Set(), engine = null, run = 0, frames = [], end = null, timer = null;
  const known = () => x.map((_, i) => !(painted.has(i) || (i >= from.value && i < Number(from.value) + Number(wide.value))));
  const number = () => Math.min(Math.max(Math.round(Number(seed.value)) || 0, 0), 99999);
  const draw = ([b, s, w]) => x.map((v) => Math.exp(-(((v - b) / s) ** 2) / 2) * Math.cos((w * (v - b)) / s));

  function picture(state, says, extra = []) {
    const seen = repair.checked ? known() : [];
    const curves = [
      ...(repair.checked ? [{ name: "what is known", y: signal.map((v, i) => (seen[i] ? v : NaN)), color: SIGNAL, width: 3 }] : []),
      ...(state ? [{ name: "the sample", y: state, color: MODEL }] : []), ...extra,
    ];
    const top = Math.max(1.2, ...(state ?? []).map(Math.abs));
    stage.show({ curves, holes: seen.map((v) => !v), low: -top, high: top, says });
  }

  // Before a run: pure noise, or the signal with its holes.
  function rest() {
    stop();
    const next = uniform(number() + 1), gauss = normal(number());
    signal = draw(low.map((v, p) => v + (high[p] - v) * next()));
    for (const part of [holes, note]) part.hidden = !repair.checked;
    mend.hidden = !painted.size;
    wishes.hidden = !wanted.length;
    go.textContent = repair.checked ? "Fill the holes" : "Make a wavelet";
    verdict.textContent = "";
    if (repair.checked) picture(null, "A wavelet with a hole: some of its samples are missing.");
    else picture(x.map(gauss), "Pure noise: the sampler starts here.");
  }

  // A hole across the middle of the signal of this seed.
  function cut() {
    painted = new Set();
    const middle = signal.reduce((best, v, i) => (Math.abs(v) > Math.abs(signal[best]) ? i : best), 0);
    from.value = middle + 3;
    from.tell();
  }

  function stop() {
    clearInterval(timer);
    [timer, frames, end, run] = [null, [], null, run + 1];
    progress.textContent = "";
  }

  function say(text) {
    stop();
    verdict.textContent = text;
  }

  function finish(state) {
    const { params, residual, valid, fitted } = end;
    const gone = x.map((_, i) => i).filter((i) => repair.checked && !known()[i]);
    const missed = Math.sqrt(gone.reduce((sum, i) => sum + (state[i] - signal[i]) ** 2, 0) / gone.length);
    const why = valid ? "valid, a wavelet of the family"
      : residual < 0.05 ? "not valid, its parameters are outside the family" : "not valid, its residual is above 5 %";
    const text = `${names.map((name, p) => `${name} = ${params[p].toFixed(2)}`).join(", ")}; residual `
      + `${(100 * residual).toFixed(1)} %: ${why}.`
      + (gone.length ? ` In the holes it is ${missed.toFixed(2)} off what was there (RMS; the wavelet's height is 1).` : "");
    picture(state, `${valid ? "A small wave packet" : "A curve"} and the wavelet closest to it. ${text}`, [
      { name: "the closest wavelet", y: fitted, color: EXACT, dash: "2 4", width: 1.6 },
      ...(gone.length ? [{ name: "what was there", y: signal.map((v, i) => (gone.includes(i) ? v : NaN)), color: SIGNAL, dash: "6 3" }] : []),
    ]);
    say(text.replaceAll("-", "−"));
  }

  // One frame a tick, however fast they come; who prefers reduced motion sees the last one only.
  function tick() {
    const frame = still.matches && end ? frames.at(-1) : still.matches ? null : frames.length > 1 || end ? frames.shift() : null;
    if (!frame) return;
    if (end && (still.matches || !frames.length)) return finish(frame.x);
    progress.textContent = `step ${frame.k} of ${steps.value}, t = ${frame.t.toFixed(0)}`;
    picture(frame.x, "Noise on its way to a wavelet.");
  }

  function hear(reply) {
    if (reply.error) return say(`That did not work: ${reply.error}`);
    if (reply.run !== run) return;
    if (reply.x) frames.push(reply);
    else end = reply;
  }

  async function start() {
    rest();
    const mine = run, ask = { run, sampler: sampler.value, steps: Number(steps.value), seed: number(), cond: wanted.map((value) => value()) };
    seed.value = ask.seed;
    if (repair.checked) Object.assign(ask, { signal, known: known() });
    progress.textContent = engine ? "…" : "loading the network …";
    try {
      engine ??= model.script ? inPage(model, script, hear) : inKernel(model, hear);
      const ready = await engine;
      if (mine !== run) return;
      timer = setInterval(tick, Math.max(20, FILM_MS / ask.steps));
      ready.ask(ask);
    } catch (error) {
      engine = null;
      say(`The network could not be loaded (${error.message}).`);
    }
  }

  go.addEventListener("click", start);
  another.addEventListener("click", () => {
    seed.value = (number() + 1) % 100000;
    rest();
    if (repair.checked) cut();
    start();
  });
  for (const radio of [make, repair]) radio.addEventListener("change", () => { rest(); if (repair.checked) { cut(); rest(); } });
  for (const control of [seed, from, wide]) control.addEventListener("input", rest);
  mend.addEventListener("click", () => { painted = new Set(); rest(); });
  stage.svg.style.touchAction = "pan-y";
  let brush = null;
  stage.svg.addEventListener("pointerdown", (event) => { brush = repair.checked ? stage.at(event) : null; paint(event); });
  stage.svg.addEventListener("pointermove", paint);
  for (const over of ["pointerup", "pointercancel", "pointerleave"]) stage.svg.addEventListener(over, () => (brush = null));

  function paint(event) {
    if (brush === null) return;
    const now = stage.at(event);
    for (let i = Math.min(brush, now); i <= Math.max(brush, now); i++) painted.add(i);
    brush = now;
    rest();
  }

  rest();
  return () => { stop(); stage.close(); Promise.resolve(engine).then((it) => it?.close()); };
}

export default { render };
