// A lattice over the latent space, decoded once: from then on, log p(x|z) of an image x at every z of the lattice is
// one matrix-vector product.

const LATTICE_CELLS = 64; // along each side
const LATTICE_REACH = 1.5; // its side relative to the home view's: six standard deviations of the prior from the mean

/** Once decoded: { corner, step, cells, columns, base }. */
let lattice = null;

/** The lattice's place: corner, the z of its top left corner; step, the side of a cell. */
function placeLattice() {
  const { center, half } = homeView();
  const reach = LATTICE_REACH * half;
  return { corner: [center[0] - reach, center[1] + reach], step: (2 * reach) / LATTICE_CELLS };
}

/** Decode the cells' centres, row by row from the top. `columns` has the logits of one pixel after the other. */
function* decodeLattice() {
  const { corner, step } = placeLattice();
  const n = LATTICE_CELLS ** 2;
  const columns = new Float32Array(784 * n);
  const base = new Float32Array(n);
  const cells = [];
  for (let k = 0; k < n; k++) {
    const column = k % LATTICE_CELLS;
    const row = Math.floor(k / LATTICE_CELLS);
    const z = [corner[0] + (column + 0.5) * step, corner[1] - (row + 0.5) * step];
    const logits = model.logits(z);
    for (let i = 0; i < 784; i++) columns[i * n + k] = logits[i];
    base[k] = -sumSoftplus(logits);
    cells.push({ z, logPrior: model.logPrior(z), isOdd: (column + row) % 2 === 1 });
    yield;
  }
  lattice = { corner, step, cells, columns, base };
  update({ isDecoded: true });
}

/** log p(x|z) of every cell of the lattice: Float32Array. */
function latticeLikelihood(x) {
  const logs = lattice.base.slice();
  addProduct(logs, lattice.columns, x);
  return logs;
}

function startLattice() {
  inSlices(decodeLattice, 0)();
}
