// The front end of PosteriorExplorer (explorers.py), with stage.js before it: where x_{t-1} lies, of x_t, x_0 and both.

function render({ model, el }) {
  const { title, steps } = model.get("meta"), view = model.get("tables");
  const group = root(el, title);
  const z = Array.from({ length: 601 }, (_, i) => -3 + i / 100);
  const table = (T) => {
    const at = steps.slice(0, steps.indexOf(T)).reduce((sum, n) => sum + n + 1, 0);
    return Array.from({ length: T + 1 }, (_, t) => view.getFloat64(8 * (at + t), true));
  };

  const row = node(group, "div", { class: "controls" });
  const count = choice(row, "steps T", Object.fromEntries(steps.map((n) => [n, `T = ${n}`])));
  const say = (v) => `= ${v.toFixed(2).replace("-", "−")}`;
  const time = field(row, "t", "input", { type: "range", min: 2, max: steps[0], value: model.get("t") }, (t) => `= ${t}`, "wide");
  const stage = drawing(group, z, "xₜ₋₁");
  const verdict = node(group, "p", { role: "status", class: "number verdict" });
  const sliders = node(group, "div", { class: "controls" });
  const clean = field(sliders, "x₀", "input", { type: "range", min: -2, max: 2, step: 0.05, value: 1 }, say, "wide");
  const noisy = field(sliders, "xₜ", "input", { type: "range", min: -2.5, max: 2.5, step: 0.05, value: -0.5 }, say, "wide");
  const bell = (mean, variance) => z.map((v) => Math.exp(-((v - mean) ** 2) / (2 * variance)));

  function draw() {
    const T = Number(count.value), logs = table(T), t = Math.min(Number(time.value), T);
    const x0 = Number(clean.value), xt = Number(noisy.value);
    // report (40), (42), (43)
    const noise = (k) => -Math.expm1(logs[k]), beta = -Math.expm1(logs[t] - logs[t - 1]);
    const first = (Math.exp(logs[t - 1] / 2) * beta) / noise(t), second = (Math.sqrt(1 - beta) * noise(t - 1)) / noise(t);
    const mean = first * x0 + second * xt, variance = (noise(t - 1) / noise(t)) * beta;
    const text = `μ̃ = ${first.toFixed(3)}·x₀ + ${second.toFixed(3)}·xₜ = ${mean.toFixed(2)}, √β̃ = ${Math.sqrt(variance).toFixed(3)}`
      + ` (β = ${beta.toPrecision(2)}, β̃ = ${variance.toPrecision(2)})`;
    stage.show({
      curves: [
        { name: "q(xₜ₋₁ given x₀)", y: bell(Math.exp(logs[t - 1] / 2) * x0, noise(t - 1)), color: SIGNAL, dash: "7 4" },
        { name: "q(xₜ given xₜ₋₁), as a function of xₜ₋₁", y: bell(xt / Math.sqrt(1 - beta), beta / (1 - beta)), color: NOISE, dash: "2 3" },
        { name: "their product: q(xₜ₋₁ given xₜ and x₀)", y: bell(mean, variance), color: EXACT, width: 2.2 },
      ],
      low: 0, high: 1.05, ticks: [[0, "0"], [1, "1"]], marks: [[-3, "-3"], [xt, "xₜ"], [x0, "x₀"], [3, "3"]].sort((p, q) => p[0] - q[0]),
      says: `Three bell curves, each scaled to height 1. ${text}`,
    });
    verdict.textContent = text.replaceAll("-", "−");
    model.set("t", t);
    model.save_changes();
  }

  count.addEventListener("change", () => { time.max = count.value; time.value = Math.max(2, Math.round(count.value / 2)); time.tell(); draw(); });
  for (const control of [time, clean, noisy]) control.addEventListener("input", draw);
  draw();
  return () => stage.close();
}

export default { render };
