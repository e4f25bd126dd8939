// The worker of the sampler in the page. It is given a model once, then requests; a new one ends the one before it.
// What it answers is what sampler_widget.replies answers in a live kernel: states, then the fit, or an error.
let model = null;
let newest = null;
const breath = () => new Promise((done) => setTimeout(done)); // lets a newer request in

function load({ manifest, weights }) {
  const net = network(manifest, new Float32Array(weights));
  model = { net, levels: schedule(manifest.log_alpha_bar), tilt: manifest.tilt, family: manifest.family };
}

async function run({ run: number, sampler, steps, seed, cond, signal, known }) {
  const { net, levels, tilt, family } = model, gauss = normal(seed);
  const draw = () => Float32Array.from(family.x, gauss), times = evenLogSnr(levels, steps, tilt);
  let ask = denoiser(net, levels, cond.map((value) => value ?? NaN));
  if (signal) ask = guided(ask, net.wiener, signal, known);
  let k = 0, last = null;
  for (const x of sample(ask, draw(), times, samplers[sampler], draw)) {
    self.postMessage({ run: number, k, t: times[k], x });
    [last, k] = [x, k + 1];
    await breath();
    if (newest !== number) return;
  }
  const { params, fitted, residual, valid } = fit(last, family);
  self.postMessage({ run: number, params, residual, valid, fitted: Float32Array.from(fitted) });
}

self.onmessage = async ({ data }) => {
  newest = data.run;
  try {
    await (data.weights ? load(data) : run(data));
  } catch (error) {
    self.postMessage({ run: newest, error: error.message });
  }
};
