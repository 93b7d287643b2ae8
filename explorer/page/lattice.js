// A lattice over the latent space, decoded once: from then on, log p(x|z) of an image x at every z of the lattice is
// one matrix-vector product. It covers the prior, as the program's does, and grows by rings of larger cells until it
// holds the codes of all test images; an image whose posterior reaches its border makes it grow further.

const LATTICE_CELLS = 64; // along each side of the square that covers the prior
const LATTICE_REACH = 6.5; // of that square from the mean of each of the prior's Gaussians, in standard deviations
const RING_CELLS = 32; // along each side of a ring, which is twice as wide as what it surrounds
const MOST_RINGS = 6;
const CODE_MARGIN = 1; // from a code to the border, at least

/** Once state.isDecoded: its grids, from the inside out, each { corner, step, side, z, columns, base, logPrior }. */
let lattice = null;

/** The square that covers the prior: its centre, and half of its side. */
function priorSquare() {
  const edges = [0, 1].map((d) => model.components.map(({ mu, sigma }) => [
    mu[d] - LATTICE_REACH * sigma[d], mu[d] + LATTICE_REACH * sigma[d],
  ]));
  const low = edges.map((pairs) => pairs.reduce((least, [edge]) => Math.min(least, edge), Infinity));
  const high = edges.map((pairs) => pairs.reduce((most, [, edge]) => Math.max(most, edge), -Infinity));
  const center = [0, 1].map((d) => (low[d] + high[d]) / 2);
  return { center, half: Math.max(high[0] - low[0], high[1] - low[1]) / 2 };
}

/**
 * Decode the centres of a square's cells, row by row from the top. `columns` has the logits of one pixel after the
 * other. Of a ring, the inner half is left out: its z are null, and its values are -Infinity.
 */
function* decodeGrid({ center, half }, side, isRing) {
  const step = (2 * half) / side;
  const corner = [center[0] - half, center[1] + half];
  const n = side ** 2;
  const columns = new Float32Array(784 * n);
  const base = new Float32Array(n).fill(-Infinity);
  const grid = { corner, step, side, z: [], columns, base, logPrior: new Float64Array(n) };
  for (let k = 0; k < n; k++) {
    const column = k % side;
    const row = Math.floor(k / side);
    const isHole = isRing && [column, row].every((i) => i >= side / 4 && i < (3 * side) / 4);
    grid.z.push(isHole ? null : [corner[0] + (column + 0.5) * step, corner[1] - (row + 0.5) * step]);
    if (isHole) continue;
    const logits = model.logits(grid.z[k]);
    for (let i = 0; i < 784; i++) columns[i * n + k] = logits[i];
    base[k] = -sumSoftplus(logits);
    grid.logPrior[k] = model.logPrior(grid.z[k]);
    yield;
  }
  return grid;
}

/** Decode one more ring. */
function* growLattice() {
  const half = 2 * latticeHalf();
  lattice.push(yield* decodeGrid({ center: latticeCenter(), half }, RING_CELLS, true));
}

function latticeHalf() {
  const { step, side } = lattice[lattice.length - 1];
  return (step * side) / 2;
}

function latticeCenter() {
  const { corner, step, side } = lattice[0];
  return [corner[0] + (step * side) / 2, corner[1] - (step * side) / 2];
}

/** The larger of the distances of z from the lattice's centre along the two axes. */
function distanceFromCenter(z) {
  const center = latticeCenter();
  return Math.max(Math.abs(z[0] - center[0]), Math.abs(z[1] - center[1]));
}

function* decodeLattice() {
  lattice = [yield* decodeGrid(priorSquare(), LATTICE_CELLS, false)];
  const farthest = points.reduce((most, z) => Math.max(most, distanceFromCenter(z)), 0);
  while (lattice.length <= MOST_RINGS && latticeHalf() < farthest + CODE_MARGIN) yield* growLattice();
  update({ isDecoded: true });
}

/** log p(x|z) of every cell of a grid: Float32Array. */
function gridLikelihood(x, grid) {
  const logs = grid.base.slice();
  addProduct(logs, grid.columns, x);
  return logs;
}

function startLattice() {
  inSlices(decodeLattice, 0)();
}
