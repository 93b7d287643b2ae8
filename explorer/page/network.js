// The VAE in the browser: float16 weights from base64, encoder and decoder as matrix-vector products.

/** Float32Array of the little-endian float16 values in a base64 string. */
function unpackFloat16(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const halves = new Uint16Array(bytes.buffer);
  return Float32Array.from(halves, (half) => {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}

/** Layers of an MLP with these widths. Its parameters start at `offset` of `weights`; `end` is where they stop. */
function readLayers(widths, weights, offset) {
  const layers = [];
  let end = offset;
  for (let i = 0; i + 1 < widths.length; i++) {
    const nIn = widths[i];
    const nOut = widths[i + 1];
    const weight = weights.subarray(end, end + nIn * nOut);
    end += nIn * nOut;
    const bias = weights.subarray(end, end + nOut);
    end += nOut;
    layers.push({ nIn, nOut, weight, bias });
  }
  return { layers, end };
}

/** Output of an MLP with a ReLU between layers. */
function forward(layers, x) {
  for (const [i, { nIn, nOut, weight, bias }] of layers.entries()) {
    const isLast = i === layers.length - 1;
    const y = new Float32Array(nOut);
    for (let row = 0; row < nOut; row++) {
      const start = row * nIn;
      let sum = bias[row];
      for (let column = 0; column < nIn; column++) sum += weight[start + column] * x[column];
      y[row] = sum > 0 || isLast ? sum : 0;
    }
    x = y;
  }
  return x;
}

/** log N(z; mu, diag(sigma^2)) in two dimensions. */
function logGaussian(z, { mu, sigma }) {
  const r2 = ((z[0] - mu[0]) / sigma[0]) ** 2 + ((z[1] - mu[1]) / sigma[1]) ** 2;
  return -r2 / 2 - Math.log(2 * Math.PI * sigma[0] * sigma[1]);
}

/** Binary cross-entropy of pixels x in [0, 1] under Bernoulli logits, summed over pixels, nats. */
function crossEntropy(logits, x) {
  return logits.reduce((sum, l, i) => sum + Math.max(l, 0) - l * x[i] + Math.log1p(Math.exp(-Math.abs(l))), 0);
}

/** The run's model: encode(x), decode(z), the density of the prior, and the terms of the ELBO. */
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

  /** The pixels' probabilities under p(x|z). */
  function decode(z) {
    return forward(decoder.layers, z).map((logit) => 1 / (1 + Math.exp(-logit)));
  }

  /** log p(z): log-sum-exp over the components of the mixture, less the log of their number. */
  function logPrior(z) {
    const logs = components.map((component) => logGaussian(z, component));
    const largest = Math.max(...logs);
    return largest + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - largest), 0) / components.length);
  }

  function priorDensity(z) {
    return Math.exp(logPrior(z));
  }

  /** -log p(x|z), nats. */
  function bce(x, z) {
    return crossEntropy(forward(decoder.layers, z), x);
  }

  /** KL(q(z|x) || p(z)) = E_q[log q - log p], nats. Gauss-Hermite quadrature gives E_q[log p]. */
  function kld({ mu, sigma }) {
    const meanLogQ = -1 - Math.log(2 * Math.PI * sigma[0] * sigma[1]);
    let meanLogP = 0;
    for (const [x, wx] of content.quadrature) {
      for (const [y, wy] of content.quadrature) {
        const z = [mu[0] + Math.SQRT2 * sigma[0] * x, mu[1] + Math.SQRT2 * sigma[1] * y];
        meanLogP += ((wx * wy) / Math.PI) * logPrior(z);
      }
    }
    return meanLogQ - meanLogP;
  }

  return { encode, decode, priorDensity, bce, kld, components };
}
