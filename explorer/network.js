"use strict";
// The VAE in the browser: float16 weights from base64, and the encoder and decoder as matrix-vector products.

/** Float32Array of the little-endian float16 values in a base64 string. */
function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const halves = new Uint16Array(bytes.buffer);
  return Float32Array.from(halves, (half) => {
    const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}

/** The layers of an MLP of such widths whose weights begin at an offset; returns them and where they end. */
function layersOf(widths, weights, offset) {
  const layers = [];
  for (let i = 0; i + 1 < widths.length; i++) {
    const [nIn, nOut] = [widths[i], widths[i + 1]];
    const weight = weights.subarray(offset, offset + nIn * nOut);
    offset += nIn * nOut;
    layers.push({ nIn, nOut, weight, bias: weights.subarray(offset, offset + nOut) });
    offset += nOut;
  }
  return { layers, end: offset };
}

/** The MLP's output for an input, a ReLU between each two layers. */
function forward(layers, x) {
  for (const [i, { nIn, nOut, weight, bias }] of layers.entries()) {
    const y = new Float32Array(nOut);
    for (let row = 0, k = 0; row < nOut; row++) {
      let sum = bias[row];
      for (let column = 0; column < nIn; column++) sum += weight[k++] * x[column];
      y[row] = sum > 0 || i === layers.length - 1 ? sum : 0;
    }
    x = y;
  }
  return x;
}

/** The run's model: encode(x), decode(z), the prior's density, and the terms of the bound. */
function makeModel(content) {
  const weights = unpacked(content.weights);
  const encoder = layersOf(content.encoder, weights, 0);
  const decoder = layersOf(content.decoder, weights, encoder.end);
  const components = content.prior.map(([m1, m2, s1, s2]) => ({ mu: [m1, m2], sigma: [s1, s2] }));

  /** The parameters of q(z|x) for pixels x in [0, 1]; sigma is 0 where the encoder is deterministic. */
  function encode(x) {
    const heads = forward(encoder.layers, x);
    const sigma = content.stochastic ? [Math.exp(heads[2] / 2), Math.exp(heads[3] / 2)] : [0, 0];
    return { mu: [heads[0], heads[1]], sigma };
  }

  function logits(z) {
    return forward(decoder.layers, z);
  }

  /** The pixels' probabilities under p(x|z). */
  function decode(z) {
    return logits(z).map((logit) => 1 / (1 + Math.exp(-logit)));
  }

  /** log p(z), of the mixture by its largest component, so that none underflows. */
  function logPrior(z) {
    const logs = components.map(({ mu, sigma }) => {
      const r2 = ((z[0] - mu[0]) / sigma[0]) ** 2 + ((z[1] - mu[1]) / sigma[1]) ** 2;
      return -r2 / 2 - Math.log(2 * Math.PI * sigma[0] * sigma[1]);
    });
    const largest = Math.max(...logs);
    return largest + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - largest), 0) / components.length);
  }

  function priorDensity(z) {
    return Math.exp(logPrior(z));
  }

  /** -log p(x|z), nats. */
  function bce(x, z) {
    return logits(z).reduce((sum, l, i) => sum + Math.max(l, 0) - l * x[i] + Math.log1p(Math.exp(-Math.abs(l))), 0);
  }

  /** KL(q(z|x) || p(z)) = E_q[log q - log p], the second expectation by Gauss-Hermite quadrature, nats. */
  function kld({ mu, sigma }) {
    let logQ = 0, logP = 0;
    for (const s of sigma) logQ -= (1 + Math.log(2 * Math.PI)) / 2 + Math.log(s);
    for (const [x, wx] of content.quadrature) {
      for (const [y, wy] of content.quadrature) {
        const z = [mu[0] + Math.SQRT2 * sigma[0] * x, mu[1] + Math.SQRT2 * sigma[1] * y];
        logP += ((wx * wy) / Math.PI) * logPrior(z);
      }
    }
    return logQ - logP;
  }

  return { encode, decode, priorDensity, bce, kld, components };
}

/**
 * A drawing as MNIST's digits were prepared: its ink scaled to fit 20 x 20 by averaging areas, and placed in 28 x 28
 * with the centre of mass in the middle. Null without ink.
 * @param ink Float32Array (side * side) of values in [0, 1].
 */
function centred(ink, side) {
  let [left, top, right, bottom] = [side, side, -1, -1];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if (ink[y * side + x] < 0.05) continue;
      left = Math.min(left, x); right = Math.max(right, x);
      top = Math.min(top, y); bottom = Math.max(bottom, y);
    }
  }
  if (right < 0) return null;
  const scale = Math.max(right - left + 1, bottom - top + 1) / 20;
  const small = new Float32Array(400);
  let [mass, massX, massY] = [0, 0, 0];
  for (let y = 0; y < 20; y++) {
    for (let x = 0; x < 20; x++) {
      const value = areaMean(ink, side, left + x * scale, top + y * scale, scale);
      small[y * 20 + x] = value;
      mass += value; massX += value * (x + 0.5); massY += value * (y + 0.5);
    }
  }
  const [shiftX, shiftY] = [Math.round(14 - massX / mass), Math.round(14 - massY / mass)];
  const image = new Float32Array(784);
  for (let y = 0; y < 28; y++) {
    for (let x = 0; x < 28; x++) {
      const [fromX, fromY] = [x - shiftX, y - shiftY];
      if (fromX >= 0 && fromX < 20 && fromY >= 0 && fromY < 20) image[y * 28 + x] = small[fromY * 20 + fromX];
    }
  }
  return image;
}

/** The mean of an image over the square of a size whose corner is at (x0, y0); outside there is no ink. */
function areaMean(image, side, x0, y0, size) {
  let sum = 0;
  for (let y = Math.floor(y0); y < Math.min(side, y0 + size); y++) {
    const height = Math.min(y + 1, y0 + size) - Math.max(y, y0);
    for (let x = Math.floor(x0); x < Math.min(side, x0 + size); x++) {
      sum += height * (Math.min(x + 1, x0 + size) - Math.max(x, x0)) * image[y * side + x];
    }
  }
  return sum / size ** 2;
}
