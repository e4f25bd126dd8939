// The schedule, the times and the samplers in plain JavaScript, as in schedules.py, grids.py, samplers.py and
// guidance.py, and held to them by tests/test_page_network.py.

// The table of log ᾱ over t = 0..T (schedules.py), read between its entries too.
function schedule(table) {
  const T = table.length - 1;
  const logAlphaBar = (t) => {
    const low = Math.min(Math.floor(t), T - 1);
    return table[low] + (t - low) * (table[low + 1] - table[low]);
  };
  const noise = (t) => -Math.expm1(logAlphaBar(t));
  return {
    T, noise, // 1 - ᾱ
    signal: (t) => Math.exp(logAlphaBar(t)), // ᾱ
    beta: (t, s) => -Math.expm1(logAlphaBar(t) - logAlphaBar(s)),
    logSnr: (t) => logAlphaBar(t) - Math.log(noise(t)),
    atLogSnr(logSnr) {
      const target = -Math.log1p(Math.exp(-logSnr)); // log ᾱ
      let high = 1;
      while (high < T && table[high] > target) high++;
      const part = (table[high - 1] - target) / (table[high - 1] - table[high]);
      return high - 1 + Math.min(Math.max(part, 0), 1);
    },
  };
}

// T > ... > 1 at equal distances of ∫ᾱ^tilt over log-SNR, then 0: grids.even_log_snr.
function evenLogSnr({ T, logSnr, atLogSnr }, steps, tilt) {
  const FINE = 4000, first = logSnr(T), last = logSnr(1);
  const place = (i) => first + ((last - first) * i) / FINE;
  const density = (i) => (1 + Math.exp(-place(i))) ** -tilt;
  const passed = [0];
  for (let i = 1; i <= FINE; i++) passed.push(passed[i - 1] + (density(i - 1) + density(i)) / 2);
  const times = [T];
  for (let k = 1, i = 1; k < steps; k++) {
    const goal = (passed[FINE] * k) / (steps - 1);
    while (i < FINE && passed[i] < goal) i++;
    times.push(atLogSnr(place(i - 1 + (goal - passed[i - 1]) / (passed[i] - passed[i - 1]))));
  }
  return [...times, 0];
}

// p_θ as the samplers ask it: (x_t, t) -> { x0, eps }; it keeps its last answer for solvers that look back.
function denoiser(net, levels, cond = null) {
  const ask = (xt, t) => {
    const eps = net(xt, levels.logSnr(t), cond), a = Math.sqrt(levels.signal(t)), s = Math.sqrt(levels.noise(t));
    const x0 = xt.map((v, i) => (v - s * eps[i]) / a);
    ask.last = { t, x0 };
    return { x0, eps };
  };
  return Object.assign(ask, { levels, last: null });
}

// DDIM's step for a given x̂_0: a·x̂_0 + keep·x_t + add·z, with σ² = η²·β̃.
function towards(x0, { noise, beta }, xt, t, s, z, eta) {
  const variance = (eta ** 2 * noise(s) * beta(t, s)) / noise(t), add = Math.sqrt(variance);
  const keep = Math.sqrt((noise(s) - variance) / noise(t));
  const a = Math.sqrt(1 - noise(s)) - keep * Math.sqrt(1 - noise(t));
  return xt.map((v, i) => a * x0[i] + keep * v + add * z[i]);
}

const ddim = (ask, xt, t, s, z, eta = 0) => towards(ask(xt, t).x0, ask.levels, xt, t, s, z, eta);
const ancestral = (ask, xt, t, s, z) => ddim(ask, xt, t, s, z, 1); // the same step: exercise 2 of the chapter on sampling

function dpmpp_2m(ask, xt, t, s, z, eta = 0) {
  const before = ask.last, { logSnr } = ask.levels;
  let { x0 } = ask(xt, t);
  if (before && s > 0) {
    const ahead = (logSnr(s) - logSnr(t)) / (logSnr(t) - logSnr(before.t)) / 2;
    x0 = x0.map((v, i) => v + (v - before.x0[i]) * ahead);
  }
  return towards(x0, ask.levels, xt, t, s, z, eta);
}

function heun(ask, xt, t, s) {
  const { signal, logSnr } = ask.levels, { eps } = ask(xt, t), end = Math.sqrt(signal(s));
  const scale = end / Math.sqrt(signal(t)), along = end * (Math.exp(-logSnr(s) / 2) - Math.exp(-logSnr(t) / 2));
  const xs = xt.map((v, i) => scale * v + along * eps[i]);
  if (s === 0) return xs;
  const then = ask(xs, s).eps;
  return xt.map((v, i) => scale * v + (along * (eps[i] + then[i])) / 2);
}

const samplers = { dpmpp_2m_sde: (...step) => dpmpp_2m(...step, 1), dpmpp_2m, ddim, ancestral, heun };

// The loop: from x at the first of the times to the last, and yield every state.
function* sample(ask, x, times, step, draw) {
  yield x;
  for (let k = 1; k < times.length; k++) yield (x = step(ask, x, times[k - 1], times[k], draw()));
}

// M·z = r for a symmetric positive M (n × n, row by row), by Cholesky's factors, which replace M.
function solve(M, r) {
  const n = r.length, z = Float64Array.from(r);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = M[i * n + j];
      for (let k = 0; k < j; k++) sum -= M[i * n + k] * M[j * n + k];
      M[i * n + j] = i === j ? Math.sqrt(sum) : sum / M[j * n + j];
    }
    for (let k = 0; k < i; k++) z[i] -= M[i * n + k] * z[k];
    z[i] /= M[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) z[i] -= M[k * n + i] * z[k];
    z[i] /= M[i * n + i];
  }
  return z;
}

// sampling.PseudoinverseGuidance with LinearCovariance, where the samples of y with known[i] are measured, with noise sigma: Kalman's
// update of x̂_0. With C = U·D·Uᵀ and B = √D·Uᵀ on the known samples it is U·√D·(σ² + B·Bᵀ)⁻¹·B·(y - x̂_0).
function guided(ask, { basis, power }, y, known, sigma = 0.01) {
  const rank = power.length, gram = new Float64Array(rank * rank);
  y.forEach((_, i) => {
    if (!known[i]) return;
    for (let k = 0; k < rank; k++)
      for (let l = 0; l < rank; l++) gram[k * rank + l] += basis[i * rank + k] * basis[i * rank + l];
  });
  const both = (xt, t) => {
    const signal = ask.levels.signal(t), noise = ask.levels.noise(t), { x0: free } = ask(xt, t);
    const root = Float64Array.from(power, (v) => Math.sqrt((v * noise) / (signal * v + noise)));
    const missed = Float64Array.from(root, (v, k) =>
      v * y.reduce((sum, value, i) => (known[i] ? sum + basis[i * rank + k] * (value - free[i]) : sum), 0));
    const z = solve(gram.map((v, i) => v * root[Math.floor(i / rank)] * root[i % rank]
      + (i % (rank + 1) ? 0 : sigma ** 2)), missed).map((v, k) => v * root[k]);
    const x0 = free.map((v, i) => z.reduce((sum, w, k) => sum + w * basis[i * rank + k], v));
    both.last = { t, x0 };
    return { x0, eps: xt.map((v, i) => (v - Math.sqrt(signal) * x0[i]) / Math.sqrt(noise)) };
  };
  return Object.assign(both, { levels: ask.levels, last: null });
}
