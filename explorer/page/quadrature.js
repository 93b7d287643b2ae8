// Sums over z for integrals: log p(x), the posterior p(z|x), and expectations under q(z|x).
//
// The cells of the lattice are split in four, again and again, where p(x, z) may be large, until the sum over them no
// longer depends on which of them are taken.

const MARGIN = 12; // nats: a cell counts if its largest value may be this little below the peak
const FLAT = 2; // nats: a cell that differs less from its neighbours hides no peak
const SPLIT_ERROR = 0.04; // largest difference of a sum over every fourth cell from the mean of the four
const FAINT = 9; // nats below the peak at which a cell no longer shows on the map
const SHOWN_CELLS = 150; // that a heat map has at least
const MOST_DECODED = 12000; // cells for one image; a posterior that needs more is not resolved
const BORDER_SHARE = 1e-3; // of p(x) in the lattice's border at which the lattice grows
const NODE_STEP = 0.75; // distance of the nodes under q, in sigmas
const NODE_REACH = 5.25; // of the nodes farthest from mu, in sigmas
const NODE_ERROR = 0.05; // nats: largest difference of two means over every other node
const MOST_HALVINGS = 3; // of the distance of the nodes

/** log of the sum of exp(logs). */
function logSumExp(logs) {
  const largest = logs.reduce((a, b) => Math.max(a, b), -Infinity);
  return largest + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - largest), 0));
}

/**
 * The lattice as square cells { z, side, log, reach, parity }: their centres; log p(x, z) there; what it may be at
 * most within the cell, judged by the steps to its neighbours; and which of every four cells it is, from 0 to 3.
 */
function coarseCells(x) {
  const cells = [];
  for (const grid of lattice) {
    const { side, step } = grid;
    const logs = gridLikelihood(x, grid);
    for (let k = 0; k < logs.length; k++) logs[k] += grid.logPrior[k];
    for (let k = 0; k < logs.length; k++) {
      if (grid.z[k] === null) continue;
      const column = k % side;
      let steepest = 0;
      if (column > 0) steepest = Math.max(steepest, rise(logs[k], logs[k - 1]));
      if (column < side - 1) steepest = Math.max(steepest, rise(logs[k], logs[k + 1]));
      if (k >= side) steepest = Math.max(steepest, rise(logs[k], logs[k - side]));
      if (k < logs.length - side) steepest = Math.max(steepest, rise(logs[k], logs[k + side]));
      const parity = 2 * (Math.floor(k / side) % 2) + (column % 2);
      cells.push({ z: grid.z[k], side: step, log: logs[k], reach: logs[k] + steepest, parity });
    }
  }
  return cells;
}

/** The difference of two values; 0 if one of them is in the hole of a ring. */
function rise(log, neighbour) {
  return neighbour === -Infinity ? 0 : Math.abs(log - neighbour);
}

const QUARTERS = [[-1, 1], [1, 1], [-1, -1], [1, -1]]; // in the order of their parity

function splitCell(x, { z, side, log: whole }) {
  const logs = [];
  const cells = QUARTERS.map(([dx, dy], parity) => {
    const centre = [z[0] + (dx * side) / 4, z[1] + (dy * side) / 4];
    logs.push(model.logLikelihood(x, centre) + model.logPrior(centre));
    return { z: centre, side: side / 2, log: logs[parity], reach: 0, parity };
  });
  for (const cell of cells) {
    let steepest = Math.abs(cell.log - whole);
    for (const log of logs) steepest = Math.max(steepest, Math.abs(cell.log - log));
    cell.reach = cell.log + steepest;
  }
  return cells;
}

function isInside(cell, z) {
  return Math.abs(z[0] - cell.z[0]) <= cell.side / 2 && Math.abs(z[1] - cell.z[1]) <= cell.side / 2;
}

/**
 * The cells after those that count were split until the sum over them is exact, and whether it is.
 * @param seed a z near which there may be a peak too narrow for the lattice: the mean of q(z|x).
 */
function* refineCells(x, seed) {
  const kept = []; // too low to be split
  let cells = coarseCells(x);
  let peak = -Infinity; // the largest value seen; where it was seen may have been split since
  let decoded = 0;
  for (;;) {
    peak = Math.max(peak, peakOf(cells));
    const counting = [];
    for (const cell of cells) {
      const hidesPeak = cell.reach > cell.log + FLAT && isInside(cell, seed);
      (cell.reach > peak - MARGIN || hidesPeak ? counting : kept).push(cell);
    }
    const widest = counting.reduce((most, { side }) => Math.max(most, side), 0);
    const isUniform = counting.every(({ side }) => side === widest);
    if (isUniform && isFine(counting)) return { cells: [...kept, ...counting], isResolved: true };
    if (decoded > MOST_DECODED || counting.length === 0) return { cells: [...kept, ...counting], isResolved: false };
    cells = [];
    for (const cell of counting) {
      if (cell.side < widest) {
        cells.push(cell);
        continue;
      }
      cells.push(...splitCell(x, cell));
      decoded += 4;
      yield;
    }
  }
}

function peakOf(cells) {
  return cells.reduce((peak, { log }) => Math.max(peak, log), -Infinity);
}

/**
 * Whether cells of one size are fine enough for the eye and for a sum: every fourth of them gives the same sum as the
 * others. All four together are far closer to it.
 */
function isFine(cells) {
  const peak = peakOf(cells);
  if (cells.filter(({ log }) => log > peak - FAINT).length < SHOWN_CELLS) return false;
  const sums = [0, 0, 0, 0];
  for (const { log, parity } of cells) sums[parity] += Math.exp(log - peak);
  const mean = (sums[0] + sums[1] + sums[2] + sums[3]) / 4;
  return sums.every((sum) => Math.abs(sum - mean) < SPLIT_ERROR * mean);
}

/** log p(x): the sum of p(x, z) over cells of one size or several, nats. */
function logEvidence(cells) {
  return logSumExp(cells.map(({ log, side }) => log + 2 * Math.log(side)));
}

/** The share of p(x) in the cells at the lattice's border. */
function borderShare(cells) {
  const edge = latticeHalf() - lattice[lattice.length - 1].step;
  const outer = cells.filter(({ z }) => distanceFromCenter(z) > edge);
  return outer.length === 0 ? 0 : Math.exp(logEvidence(outer) - logEvidence(cells));
}

/** The posterior's cells, and whether they resolve it, on a lattice that is large enough for it. */
function* integratePosterior(x, seed) {
  for (;;) {
    const result = yield* refineCells(x, seed);
    if (!result.isResolved || borderShare(result.cells) < BORDER_SHARE) return result;
    if (lattice.length > MOST_RINGS) return { ...result, isResolved: false };
    yield* growLattice();
  }
}

/** epsilon, weight and parity of the nodes at which expectations under N(0, I) are taken: a lattice in a disc. */
function makeNodes(step) {
  const n = Math.floor(NODE_REACH / step);
  const nodes = [];
  let total = 0;
  for (let i = -n; i <= n; i++) {
    for (let j = -n; j <= n; j++) {
      const r2 = step ** 2 * (i ** 2 + j ** 2);
      if (r2 > NODE_REACH ** 2) continue;
      const weight = Math.exp(-r2 / 2);
      nodes.push({ epsilon: [i * step, j * step], weight, parity: Math.abs(i + j) % 2 });
      total += weight;
    }
  }
  for (const node of nodes) node.weight /= total;
  return nodes;
}

/** z = mu + sigma * epsilon, the reparameterization. */
function reparameterize({ mu, sigma }, epsilon) {
  return mu.map((m, d) => m + sigma[d] * epsilon[d]);
}

/**
 * The mean of a function of z under q(z|x), over nodes so close that every other one gives the same: the function may
 * have kinks. NaN if they cannot be had so close.
 */
function* expectation(q, f) {
  for (let halvings = 0, step = NODE_STEP; halvings <= MOST_HALVINGS; halvings++, step /= 2) {
    const sums = [0, 0];
    const weights = [0, 0];
    for (const { epsilon, weight, parity } of makeNodes(step)) {
      sums[parity] += weight * f(reparameterize(q, epsilon));
      weights[parity] += weight;
      yield;
    }
    if (Math.abs(sums[0] / weights[0] - sums[1] / weights[1]) < NODE_ERROR) return sums[0] + sums[1];
  }
  return NaN;
}

/** KL(N(mu, diag(sigma^2)) || N(m, diag(s^2))), nats. */
function gaussianKl({ mu, sigma }, { mu: m, sigma: s }) {
  return [0, 1].reduce((sum, d) => {
    const variance = (sigma[d] / s[d]) ** 2;
    return sum + (((mu[d] - m[d]) / s[d]) ** 2 + variance - 1 - Math.log(variance)) / 2;
  }, 0);
}

/** BCE = -E_q[log p(x|z)] and KLD = KL(q(z|x) || p(z)), the two terms of -ELBO, nats. */
function* boundTerms(x, q) {
  const bce = -(yield* expectation(q, (z) => model.logLikelihood(x, z)));
  if (model.components.length === 1) return { bce, kld: gaussianKl(q, model.components[0]) };
  return { bce, kld: yield* expectation(q, (z) => logGaussian(z, q) - model.logPrior(z)) };
}
