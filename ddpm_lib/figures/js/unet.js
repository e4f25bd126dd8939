// The book's denoiser in plain JavaScript: LinearSkip around UNet1D, as in networks.py, and held to it by
// tests/test_page_network.py. A signal is a Float32Array, (C, L) as in torch.
//
// Inside the network it is stored position by position, x[p * channels + c]. What a convolution sees at one position is
// then one piece of the array, and every layer, from Linear to ConvTranspose1d, is one loop: `affine`.

// y = W·piece + bias for each of `places` pieces of x, `step` numbers apart. Four rows at a time, so that a number of x
// is read once for the four; where fewer are left, the last row is computed again.
function affine({ weight, bias }, x, places = 1, step = 0) {
  const outs = bias.length, ins = weight.length / outs, y = new Float32Array(places * outs);
  for (let p = 0, from = 0, to = 0; p < places; p++, from += step, to += outs) {
    for (let o = 0; o < outs; o += 4) {
      const o1 = Math.min(o + 1, outs - 1), o2 = Math.min(o + 2, outs - 1), o3 = Math.min(o + 3, outs - 1);
      const w = o * ins, w1 = o1 * ins, w2 = o2 * ins, w3 = o3 * ins;
      let sum = bias[o], sum1 = bias[o1], sum2 = bias[o2], sum3 = bias[o3];
      for (let i = 0; i < ins; i++) {
        const v = x[from + i];
        sum += weight[w + i] * v;
        sum1 += weight[w1 + i] * v;
        sum2 += weight[w2 + i] * v;
        sum3 += weight[w3 + i] * v;
      }
      y[to + o] = sum;
      y[to + o1] = sum1;
      y[to + o2] = sum2;
      y[to + o3] = sum3;
    }
  }
  return y;
}

const silu = (x) => x.map((v) => v / (1 + Math.exp(-v)));
// Sines and cosines; the angle is rounded as torch rounds it, since those of some hundred radians have few digits left.
const waves = (place, freqs) => {
  const angles = Array.from(freqs, (f) => Math.fround(Math.fround(place) * f));
  return [...angles.map(Math.sin), ...angles.map(Math.cos)];
};

// Conv1d (out, in, k): the rows in the order in which a piece of x is stored.
function convolution({ weight, bias, shape: [outs, ins, kernel] }) {
  const rows = new Float32Array(weight.length);
  for (let o = 0, to = 0; o < outs; o++)
    for (let k = 0; k < kernel; k++) for (let i = 0; i < ins; i++) rows[to++] = weight[(o * ins + i) * kernel + k];
  return { weight: rows, bias, kernel };
}

// ConvTranspose1d (in, out, k) with stride k: one position becomes k of them, side by side.
function transposed({ weight, bias, shape: [ins, outs, kernel] }) {
  const rows = new Float32Array(weight.length), biases = new Float32Array(kernel * outs);
  for (let k = 0, to = 0; k < kernel; k++)
    for (let o = 0; o < outs; o++) {
      biases[k * outs + o] = bias[o];
      for (let i = 0; i < ins; i++) rows[to++] = weight[(i * outs + o) * kernel + k];
    }
  return { weight: rows, bias: biases, kernel };
}

// The tensors of a state_dict by name: "network.down.0.1.look.weight" is at root.network.down[0][1].look.weight.
function tree(names, weights) {
  const root = {};
  let at = 0;
  for (const [name, shape] of names) {
    const keys = name.split("."), last = keys.pop();
    const place = keys.reduce((node, key) => (node[key] ??= {}), root);
    place[last] = weights.subarray(at, (at += shape.reduce((a, b) => a * b, 1)));
    if (last === "weight" && shape.length === 3) place.shape = shape;
  }
  if (at !== weights.length) throw new Error(`the manifest names ${at} weights, there are ${weights.length}`);
  return root;
}

// x (L, channels) and an embedding -> (L, out), for the sizes that the tensors have.
function unet(net, { bridges }) {
  const patches = convolution(net.patches), width = patches.bias.length;
  const stacks = (part) =>
    Object.values(part).map((stack) =>
      Object.values(stack).map(({ look, norm, film, mix }) => ({ look: convolution(look), norm, film, mix })));
  const down = stacks(net.down), up = stacks(net.up ?? {});
  const shrink = Object.values(net.shrink ?? {}).map(convolution), grow = Object.values(net.grow ?? {}).map(transposed);
  const samples = transposed(net.samples);
  const margin = (down[0][0].look.kernel >> 1) * width; // h has this many zeros at both ends
  const framed = (x) => { const h = new Float32Array(x.length + 2 * margin); h.set(x, margin); return h; };
  const inside = (h) => h.subarray(margin, h.length - margin);

  function block({ look, norm, film, mix }, h, emb) {
    const places = inside(h).length / width, channels = 2 * width;
    const x = affine(look, h, places, width), told = affine(film, emb);
    const mean = x.reduce((sum, v) => sum + v, 0) / x.length;
    const scale = 1 / Math.sqrt(x.reduce((sum, v) => sum + (v - mean) ** 2, 0) / x.length + 1e-5);
    for (let i = 0, c = 0; i < x.length; i++, c = c + 1 === channels ? 0 : c + 1) {
      const normed = (x[i] - mean) * scale * norm.weight[c] + norm.bias[c];
      x[i] = normed * (1 + told[c]) + told[channels + c];
    }
    const change = affine(mix, silu(x), places, channels);
    for (let i = 0; i < change.length; i++) h[margin + i] += change[i];
  }

  return (x, channels, emb) => {
    const length = x.length / channels, multiple = patches.kernel * 2 ** shrink.length;
    const whole = new Float32Array(Math.ceil(length / multiple) * multiple * channels);
    whole.set(x);
    let h = framed(affine(patches, whole, whole.length / channels / patches.kernel, patches.kernel * channels));
    const skips = [];
    down.forEach((stack, level) => {
      for (const one of stack) block(one, h, emb);
      if (level === shrink.length) return;
      skips.push(h);
      h = framed(affine(shrink[level], inside(h), inside(h).length / width / 2, 2 * width));
    });
    up.forEach((stack, level) => {
      h = framed(affine(grow[level], inside(h), inside(h).length / width, width));
      const skip = skips.pop();
      if (bridges) for (let i = 0; i < h.length; i++) h[i] += skip[i];
      for (const one of stack) block(one, h, emb);
    });
    const outs = samples.bias.length / samples.kernel;
    return affine(samples, inside(h), inside(h).length / width, width).subarray(0, length * outs);
  };
}

// What the network is told: the noise level, and of each parameter its value, or NaN where it is not asked for.
function embedding({ noise_level, conditions }) {
  const dim = noise_level.mlp[2].bias.length;
  return (logSnr, cond) => {
    const emb = silu(affine(noise_level.mlp[2], silu(affine(noise_level.mlp[0], waves(logSnr, noise_level.freqs)))));
    if (!conditions) return emb;
    const { low, high, freqs, value, null: nothing, mlp } = conditions;
    const sum = new Float32Array(dim);
    low.forEach((_, p) => {
      if (!cond || Number.isNaN(cond[p])) return sum.forEach((_, d) => (sum[d] += nothing[p * dim + d]));
      waves((cond[p] - low[p]) / (high[p] - low[p]), freqs).forEach((wave, f, { length }) => {
        const size = Math.min(1, Math.PI / freqs[f % freqs.length]);
        sum.forEach((_, d) => (sum[d] += size * wave * value[(p * length + f) * dim + d]));
      });
    });
    return affine(mlp[4], silu(affine(mlp[2], silu(affine(mlp[0], sum))))).map((v, d) => v + emb[d]);
  };
}

// The network of the manifest: (x (C, L), log-SNR, cond) -> ε̂ (C, L), as LinearSkip says it; its linear part as `wiener`.
function network(manifest, weights) {
  const { network: net, wiener } = tree(manifest.tensors, weights);
  const { mean, basis, power } = wiener, rank = power.length;
  const forward = unet(net, manifest), told = embedding(net);
  const across = { weight: new Float32Array(basis.length), bias: new Float32Array(rank) };
  basis.forEach((v, i) => (across.weight[(i % rank) * mean.length + Math.floor(i / rank)] = v));
  const channels = manifest.channels, length = mean.length / channels, seen = 2 * channels + Number(manifest.position);

  const run = (x, logSnr, cond = null) => {
    const signal = 1 / (1 + Math.exp(-logSnr)), noise = 1 / (1 + Math.exp(logSnr));
    const a = Math.sqrt(signal), s = Math.sqrt(noise), size = 1 / Math.sqrt(signal * manifest.size + noise);
    const z = affine(across, x.map((v, i) => v - a * mean[i]));
    const x0 = affine({ weight: basis, bias: mean }, z.map((v, k) => (v * a * power[k]) / (signal * power[k] + noise)));
    const linear = x.map((v, i) => (v - a * x0[i]) / s);
    const left = Math.sqrt(power.reduce((sum, v) => sum + (signal * v) / (signal * v + noise), 0) / mean.length);
    const input = new Float32Array(length * seen);
    for (let p = 0, at = 0; p < length; p++) {
      for (let c = 0; c < channels; c++) input[at++] = size * x[c * length + p];
      for (let c = 0; c < channels; c++) input[at++] = linear[c * length + p];
      if (manifest.position) input[at++] = length > 1 ? (2 * p) / (length - 1) - 1 : -1;
    }
    const rest = forward(input, seen, told(logSnr, cond));
    return linear.map((v, i) => v + left * rest[(i % length) * channels + Math.floor(i / length)]);
  };
  return Object.assign(run, { wiener });
}
