// Least squares: which wavelet of the benchmark family is this signal? metrics.fit_family, for one signal.

// ψ at all x, and its derivatives by b, s and w where `slopes` is given.
function morlet(x, [b, s, w], slopes = null) {
  return x.map((v, i) => {
    const u = (v - b) / s, window = Math.exp((-u * u) / 2), wave = window * Math.cos(w * u);
    if (slopes) {
      const turn = window * Math.sin(w * u), by_u = -u * wave - w * turn;
      slopes[i] = [-by_u / s, (-by_u * u) / s, -u * turn];
    }
    return wave;
  });
}

const squares = (a, b) => a.reduce((sum, v, i) => sum + (v - b[i]) ** 2, 0);

// Middles of the cells of a grid over the box, and a little beyond it.
function* grid({ low, high, cells }) {
  const at = (p, k) => (low[p] + high[p]) / 2 + (1.15 * (high[p] - low[p]) * (k + 0.5 - cells[p] / 2)) / cells[p];
  for (let i = 0; i < cells[0]; i++)
    for (let j = 0; j < cells[1]; j++) for (let k = 0; k < cells[2]; k++) yield [at(0, i), at(1, j), at(2, k)];
}

// The solution of a 3 × 3 system, by Cramer's rule.
function solve3(m, r) {
  const det = (a, b, c) =>
    a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
  const whole = det(...m);
  return r.map((_, p) => det(...m.map((row, i) => row.map((v, q) => (q === p ? r[i] : v)))) / whole);
}

// Levenberg and Marquardt from one start, in units of the sides of the box.
function descend(signal, { x, low, high }, start, iterations) {
  const side = high.map((v, p) => v - low[p]);
  const near = (v, p) => Math.min(Math.max(v, low[p] - side[p] / 2), high[p] + side[p] / 2);
  let params = start, damping = 1e-3, error = squares(signal, morlet(x, params));
  for (let turn = 0; turn < iterations; turn++) {
    const slopes = [], model = morlet(x, params, slopes);
    const normal = side.map(() => [0, 0, 0]), pull = [0, 0, 0];
    slopes.forEach((slope, i) => {
      for (let p = 0; p < 3; p++) {
        pull[p] += slope[p] * side[p] * (signal[i] - model[i]);
        for (let q = 0; q < 3; q++) normal[p][q] += slope[p] * side[p] * slope[q] * side[q];
      }
    });
    const lifted = normal.map((row, p) => row.map((v, q) => (p === q ? v + damping * Math.max(v, 1e-6) : v)));
    const step = solve3(lifted, pull);
    const trial = params.map((v, p) => near(v + side[p] * step[p], p));
    const trialError = squares(signal, morlet(x, trial));
    const better = trialError < error;
    if (better) [params, error] = [trial, trialError];
    damping = Math.min(Math.max(better ? damping / 3 : damping * 4, 1e-8), 1e8);
  }
  return { params, error };
}

// { params, fitted, residual, valid } of a signal; `family` is { names, low, high, x, cells } of the manifest.
function fit(signal, family, { starts = 4, iterations = 20, tolerance = 0.05 } = {}) {
  const near = [];
  for (const params of grid(family)) {
    const error = squares(signal, morlet(family.x, params));
    if (near.length === starts && error >= near[starts - 1].error) continue;
    near.push({ params, error });
    near.sort((one, other) => one.error - other.error).splice(starts);
  }
  const ends = near.map(({ params }) => descend(signal, family, params, iterations));
  const { params, error } = ends.reduce((best, end) => (end.error < best.error ? end : best));
  const fitted = morlet(family.x, params);
  const residual = Math.sqrt(error / fitted.reduce((sum, v) => sum + v * v, 0));
  const inside = params.every((v, p) => {
    const slack = 0.02 * (family.high[p] - family.low[p]);
    return v >= family.low[p] - slack && v <= family.high[p] + slack;
  });
  return { params, fitted, residual, valid: inside && residual < tolerance };
}
