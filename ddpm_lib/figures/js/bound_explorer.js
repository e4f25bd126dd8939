// The front end of BoundExplorer (explorers.py), with stage.js before it: the terms of the bound for a variance of one's choice.

function render({ model, el }) {
  const { title, names, dim, T, bits } = model.get("meta"), view = model.get("tables");
  const group = root(el, title);
  const column = (k) => Array.from({ length: T + 1 }, (_, t) => view.getFloat64(8 * (k * (T + 1) + t), true));
  const logs = column(0), errors = names.map((_, k) => column(1 + k)); // log ᾱ_t, E‖x_0 - x̂_0‖² of each denoiser
  const scale = bits ? 1 / (dim * Math.LN2) : 1, unit = bits ? "bits per dimension" : "nats";
  const ts = [...new Set(Array.from({ length: 201 }, (_, i) => Math.round(2 * (T / 2) ** (i / 200))))], place = ts.map(Math.log10);
  const marks = [...new Set([2, 10, 100, T])].filter((t) => t <= T).map((t) => [Math.log10(t), String(t)]);

  const row = node(group, "div", { class: "controls" });
  const who = choice(row, "denoiser", Object.fromEntries(names.map((name, k) => [k, name])));
  const kind = choice(row, "variance σₜ²", { mixed: "between β̃ and β", best: "the best at each t" });
  const mix = field(row, "β̃ … β", "input", { type: "range", min: 0, max: 1, step: 0.02, value: model.get("mix") },
    (v) => `${Math.round(100 * v)} %`, "wide");
  const stage = drawing(group, place, `t (upwards: Lₜ, ${unit})`);
  const verdict = node(group, "p", { role: "status", class: "number verdict" });

  function terms(error, sigma2) {
    const noise = (t) => -Math.expm1(logs[t]), out = new Array(T + 1).fill(0);
    for (let t = 2; t <= T; t++) { // step D11: the divergence of two Gaussians
      const beta = -Math.expm1(logs[t] - logs[t - 1]), tilde = (noise(t - 1) / noise(t)) * beta;
      const gap = (Math.exp(logs[t - 1]) * (beta / noise(t)) ** 2 * error[t]) / dim; // mean square of the means' distance
      const s2 = sigma2(beta, tilde, gap);
      out[t] = 0.5 * dim * (gap / s2 + tilde / s2 - 1 - Math.log(tilde / s2)) * scale;
    }
    return out;
  }

  function draw() {
    const error = errors[Number(who.value)], v = Number(mix.value);
    const mixed = (beta, tilde) => Math.exp(v * Math.log(beta) + (1 - v) * Math.log(tilde));
    const best = (beta, tilde, gap) => tilde + gap;
    mix.parentElement.hidden = kind.value === "best";
    const chosen = terms(error, kind.value === "best" ? best : mixed), least = terms(error, best);
    const sum = (all) => all.reduce((total, term) => total + term, 0);
    const text = `The terms t = 2…${T} add up to ${sum(chosen).toFixed(3)} ${unit}; with the best variance to ${sum(least).toFixed(3)}.`;
    const low = -6, high = Math.max(1, Math.log10(Math.max(...chosen)) + 0.2);
    const over = (all) => ts.map((t) => (all[t] > 1e-6 ? Math.log10(all[t]) : null)); // the line ends where it leaves the frame
    stage.show({
      curves: [{ name: "the best variance", y: over(least), color: EXACT, dash: "2 3" }, { name: "the chosen one", y: over(chosen), color: MODEL, width: 2.2 }],
      low, high, ticks: [-6, -4, -2, 0].map((p) => [p, p ? `1e${p}` : "1"]), marks,
      says: `Lₜ over t on logarithmic axes, ${unit}. ${text}`,
    });
    verdict.textContent = text;
    model.set("mix", v);
    model.save_changes();
  }

  for (const control of [who, kind, mix]) control.addEventListener("input", draw);
  draw();
  return () => stage.close();
}

export default { render };
