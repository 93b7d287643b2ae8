// The VAE in the browser: float16 weights from base64, encoder and decoder as matrix-vector products.

/** The bytes in a base64 string. */
function unpackBytes(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** The value of every float16 by its 16 bits. */
const HALF_VALUES = Float32Array.from({ length: 2 ** 16 }, (_, half) => {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
});

/** Float32Array of the little-endian float16 values in a base64 string. */
function unpackFloat16(base64) {
  const halves = new Uint16Array(unpackBytes(base64).buffer);
  const values = new Float32Array(halves.length);
  for (let i = 0; i < values.length; i++) values[i] = HALF_VALUES[halves[i]];
  return values;
}

/**
 * Layers of an MLP with these widths. Its parameters start at `offset` of `weights`; `end` is where they stop.
 * A layer's weights are turned into columns, one for each input.
 */
function readLayers(widths, weights, offset) {
  const layers = [];
  let end = offset;
  for (let i = 0; i + 1 < widths.length; i++) {
    const nIn = widths[i];
    const nOut = widths[i + 1];
    const columns = new Float32Array(nIn * nOut);
    for (let output = 0; output < nOut; output++) {
      for (let input = 0; input < nIn; input++) columns[input * nOut + output] = weights[end + output * nIn + input];
    }
    end += nIn * nOut;
    layers.push({ columns, bias: weights.subarray(end, end + nOut) });
    end += nOut;
  }
  return { layers, end };
}

/**
 * Add the product of a matrix and a vector x to y. The matrix is stored column after column.
 * Where x is 0, as in most pixels and about half of the hidden units, a column costs nothing. Four at a time are
 * several times as fast as one.
 */
function addProduct(y, columns, x) {
  const n = y.length;
  const starts = new Int32Array(x.length + 3); // of the columns that count, and then of no others: their factors are 0
  const factors = new Float64Array(x.length + 3);
  let count = 0;
  for (let k = 0; k < x.length; k++) {
    if (x[k] === 0) continue;
    starts[count] = k * n;
    factors[count] = x[k];
    count++;
  }
  for (let k = 0; k < count; k += 4) {
    const a = starts[k];
    const b = starts[k + 1];
    const c = starts[k + 2];
    const d = starts[k + 3];
    const fa = factors[k];
    const fb = factors[k + 1];
    const fc = factors[k + 2];
    const fd = factors[k + 3];
    for (let i = 0; i < n; i++) {
      y[i] += fa * columns[a + i] + fb * columns[b + i] + fc * columns[c + i] + fd * columns[d + i];
    }
  }
}

/** Values of every layer of an MLP with a ReLU between layers; the last ones are its output. */
function forwardAll(layers, x) {
  const values = [];
  for (let layer = 0; layer < layers.length; layer++) {
    const { columns, bias } = layers[layer];
    const y = bias.slice();
    addProduct(y, columns, x);
    if (layer + 1 < layers.length) {
      for (let k = 0; k < y.length; k++) {
        if (y[k] < 0) y[k] = 0;
      }
    }
    x = y;
    values.push(y);
  }
  return values;
}

/** Output of an MLP. */
function forward(layers, x) {
  return forwardAll(layers, x)[layers.length - 1];
}

/** log N(z; mu, diag(sigma^2)) in two dimensions. */
function logGaussian(z, { mu, sigma }) {
  const r2 = ((z[0] - mu[0]) / sigma[0]) ** 2 + ((z[1] - mu[1]) / sigma[1]) ** 2;
  return -r2 / 2 - Math.log(2 * Math.PI * sigma[0] * sigma[1]);
}

/** Sum of log(1 + exp(l)) over 784 logits l: a Bernoulli's log normaliser, nats. */
function sumSoftplus(logits) {
  let sum = 0;
  let product = 1; // of factors of at most 2, so at most 2 ** 784, which is a finite number
  for (let i = 0; i < logits.length; i++) {
    const l = logits[i];
    if (l > 0) sum += l;
    product *= 1 + Math.exp(l > 0 ? -l : l);
  }
  return sum + Math.log(product);
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** The run's model: encode(x), decode(z), log p(x|z) and log p(z). */
function makeModel(content) {
  const weights = unpackFloat16(content.weights);
  const encoder = readLayers(content.encoder, weights, 0);
  const decoder = readLayers(content.decoder, weights, encoder.end);
  const components = content.prior.map(([m1, m2, s1, s2]) => ({ mu: [m1, m2], sigma: [s1, s2] }));

  /** mu and sigma of q(z|x) for pixels x in [0, 1]. sigma is 0 if the encoder is deterministic. */
  function encode(x) {
    const heads = forward(encoder.layers, x);
    const sigma = content.stochastic ? [Math.exp(heads[2] / 2), Math.exp(heads[3] / 2)] : [0, 0];
    return { mu: [heads[0], heads[1]], sigma };
  }

  /** Logits of the pixels' probabilities under p(x|z). */
  function logits(z) {
    return forward(decoder.layers, z);
  }

  /** The pixels' probabilities. */
  function decode(z) {
    return logits(z).map((logit) => 1 / (1 + Math.exp(-logit)));
  }

  /** log p(x|z) = -BCE, nats. */
  function logLikelihood(x, z) {
    const l = logits(z);
    return dot(x, l) - sumSoftplus(l);
  }

  /** log p(z): log-sum-exp over the components of the mixture, less the log of their number. */
  function logPrior(z) {
    const logs = components.map((component) => logGaussian(z, component));
    const largest = logs.reduce((a, b) => Math.max(a, b));
    return largest + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - largest), 0) / components.length);
  }

  const encoderLayers = (x) => forwardAll(encoder.layers, x);
  const decoderLayers = (z) => forwardAll(decoder.layers, z);
  return { encode, logits, decode, logLikelihood, logPrior, components, encoderLayers, decoderLayers };
}
