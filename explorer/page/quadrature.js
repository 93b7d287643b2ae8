// Sums over z for integrals: log p(x), the posterior p(z|x), and expectations under q(z|x).

const MARGINS = [25, 14, 9]; // nats below the peak at which a cell of the first, second, ... size is still split
const SMALLEST = 8; // times that a cell may be halved
const SPLIT_ERROR = 0.02; // largest difference of two sums over every other cell, as a share of their total
const FAINT = 9; // nats below the peak at which a cell no longer shows on the map
const SHOWN_CELLS = 150; // that a heat map has at least
const NODE_STEP = 0.5; // distance of the nodes under q, in sigmas
const NODE_REACH = 4.5; // of the nodes farthest from mu, in sigmas

/** log of the sum of exp(logs). */
function logSumExp(logs) {
  const largest = logs.reduce((a, b) => Math.max(a, b), -Infinity);
  return largest + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - largest), 0));
}

/** The lattice as square cells { z, side, log, isOdd }: their centres, and log p(x, z) there. */
function coarseCells(x) {
  const logs = latticeLikelihood(x);
  return lattice.cells.map(({ z, logPrior, isOdd }, k) => ({ z, side: lattice.step, log: logs[k] + logPrior, isOdd }));
}

/** The cells after those with mass were split in four, again and again, until the sum over them is exact. */
function* refineCells(x) {
  let cells = coarseCells(x);
  const kept = [];
  for (let level = 0; level < SMALLEST && !isFine(cells); level++) {
    const limit = peakOf(cells) - MARGINS[Math.min(level, MARGINS.length - 1)];
    const split = cells.filter((cell) => cell.log > limit);
    kept.push(...cells.filter((cell) => cell.log <= limit));
    cells = [];
    for (const cell of split) {
      cells.push(...splitCell(x, cell));
      yield;
    }
  }
  return [...kept, ...cells];
}

function splitCell(x, { z, side }) {
  return [[-1, 1], [1, 1], [-1, -1], [1, -1]].map(([dx, dy]) => {
    const centre = [z[0] + (dx * side) / 4, z[1] + (dy * side) / 4];
    const log = model.logLikelihood(x, centre) + model.logPrior(centre);
    return { z: centre, side: side / 2, log, isOdd: dx === dy };
  });
}

function peakOf(cells) {
  return cells.reduce((peak, { log }) => Math.max(peak, log), -Infinity);
}

/**
 * Whether cells of one size are fine enough for the eye and for a sum: the chessboard's black ones give the same sum
 * as the white ones. Both together are far closer to it.
 */
function isFine(cells) {
  const peak = peakOf(cells);
  if (cells.filter(({ log }) => log > peak - FAINT).length < SHOWN_CELLS) return false;
  const sums = [0, 0];
  for (const { log, isOdd } of cells) sums[Number(isOdd)] += Math.exp(log - peak);
  return Math.abs(sums[0] - sums[1]) < SPLIT_ERROR * (sums[0] + sums[1]);
}

/** log p(x): the sum of p(x, z) over cells of one size or several, nats. */
function logEvidence(cells) {
  return logSumExp(cells.map(({ log, side }) => log + 2 * Math.log(side)));
}

/** epsilon and weight of the nodes at which expectations under N(0, I) are taken: a lattice in a disc. */
const NODES = (() => {
  const n = Math.floor(NODE_REACH / NODE_STEP);
  const axis = Array.from({ length: 2 * n + 1 }, (_, i) => (i - n) * NODE_STEP);
  const epsilons = axis.flatMap((a) => axis.map((b) => [a, b])).filter(([a, b]) => Math.hypot(a, b) <= NODE_REACH);
  const densities = epsilons.map(([a, b]) => Math.exp(-(a * a + b * b) / 2));
  const total = densities.reduce((a, b) => a + b);
  return epsilons.map((epsilon, i) => ({ epsilon, weight: densities[i] / total }));
})();

/** z = mu + sigma * epsilon, the reparameterization. */
function reparameterize({ mu, sigma }, epsilon) {
  return mu.map((m, d) => m + sigma[d] * epsilon[d]);
}

/** BCE = -E_q[log p(x|z)] and KLD = E_q[log q(z|x) - log p(z)], the two terms of -ELBO, nats. */
function* boundTerms(x, q) {
  let bce = 0;
  let kld = 0;
  for (const { epsilon, weight } of NODES) {
    const z = reparameterize(q, epsilon);
    bce -= weight * model.logLikelihood(x, z);
    kld += weight * (logGaussian(z, q) - model.logPrior(z));
    yield;
  }
  return { bce, kld };
}
