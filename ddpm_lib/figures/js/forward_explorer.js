// The front end of ForwardExplorer (explorers.py), with stage.js and noise.js before it: a wavelet sinks into noise.

function render({ model, el }) {
  const { title, schedules, steps, names, low, high, grid: [first, last, L], start } = model.get("meta");
  const view = model.get("tables"), x = Array.from({ length: L }, (_, i) => first + ((last - first) * i) / (L - 1));
  const group = root(el, title);

  // log ᾱ of one schedule with T steps, t = 0…T: the tables lie one behind the other, in the order of `schedules` and `steps`.
  const table = (name, T) => {
    let at = 0;
    for (const other of schedules) for (const n of steps) {
      if (other === name && n === T) return Array.from({ length: T + 1 }, (_, t) => view.getFloat32(4 * (at + t), true));
      at += n + 1;
    }
  };

  const row = node(group, "div", { class: "controls" });
  const schedule = choice(row, "schedule", Object.fromEntries(schedules.map((name) => [name, name])));
  const count = choice(row, "steps T", Object.fromEntries(steps.map((n) => [n, `T = ${n}`])));
  count.value = steps.at(-1);
  const another = node(row, "button", { type: "button" }, "Other noise");
  const time = field(node(group, "div", { class: "controls" }), "t", "input",
    { type: "range", min: 0, max: steps.at(-1), value: model.get("t") }, (t) => `= ${t} of ${count.value}`, "wide");
  const stage = drawing(group, x, "x");
  const verdict = node(group, "p", { role: "status", class: "number verdict" });
  const where = drawing(group, Array.from({ length: 201 }, (_, i) => i / 200), "t / T");
  const shape = node(group, "div", { class: "controls", role: "group", "aria-label": "the wavelet" });
  const params = names.map((name, p) => field(shape, name, "input", {
    type: "range", min: low[p], max: high[p], step: high[p] - low[p] > 1 ? 0.05 : 0.01, value: start[p],
  }, (v) => `= ${v.toFixed(2).replace("-", "−")}`, "wide"));
  let seed = 1;

  function draw() {
    const T = Number(count.value), logs = table(schedule.value, T), t = Math.min(Number(time.value), T);
    const [b, s, w] = params.map((slider) => Number(slider.value));
    const x0 = x.map((v) => Math.exp(-(((v - b) / s) ** 2) / 2) * Math.cos((w * (v - b)) / s));
    const gauss = normal(seed), signal = Math.exp(logs[t] / 2), noise = Math.sqrt(-Math.expm1(logs[t]));
    const left = x0.map((v) => signal * v), xt = left.map((v) => v + noise * gauss());
    const power = left.reduce((sum, v) => sum + v * v, 0) / L, ratio = power / noise ** 2;
    const top = Math.max(1.2, ...xt.map(Math.abs));
    const sum = `xₜ = ${signal.toFixed(3)}·x₀ + ${noise.toFixed(3)}·ε`;
    const seen = t ? `the signal's power is ${ratio.toPrecision(2)} of the noise's` : "no noise yet";
    const text = `${sum}; ${seen}` + (t === T ? `. At the end ${(100 * signal).toFixed(1)} % of the amplitude is left.` : ".");
    stage.show({
      curves: [{ name: "xₜ, what one sees", y: xt, color: NOISE, width: 1.2 }, { name: "√ᾱ·x₀, what is left of the wavelet", y: left, color: SIGNAL }],
      low: -top, high: top, says: `A wavelet and noise: ${text}`,
    });
    const others = schedules.filter((name) => name !== schedule.value), at = (name) => table(name, T);
    const curve = (values) => where.x.map((tau) => Math.exp(values[Math.round(tau * T)]));
    where.show({
      curves: [
        ...others.map((name, i) => ({ name: i ? "" : "the other schedules", y: curve(at(name)), color: NOISE, dash: "3 4", width: 1 })),
        { name: `ᾱ of ${schedule.value}`, y: curve(logs), color: SIGNAL, width: 2.4 },
      ],
      low: 0, high: 1, ticks: [[0, "0"], [0.5, "0.5"], [1, "1"]], here: t / T,
      says: `ᾱ over t / T for every schedule; of ${schedule.value} it is ${Math.exp(logs[t]).toPrecision(2)} here.`,
    });
    verdict.textContent = text;
    model.set("t", t);
    model.save_changes();
  }

  // Another T reads the same curve at other places: stay at the same place.
  count.addEventListener("change", () => {
    const share = Number(time.value) / Number(time.max);
    time.max = count.value;
    time.value = Math.round(share * Number(count.value));
    time.tell();
    draw();
  });
  for (const control of [schedule, time, ...params]) control.addEventListener("input", draw);
  another.addEventListener("click", () => { seed += 1; draw(); });
  draw();
  return () => { stage.close(); where.close(); };
}

export default { render };
