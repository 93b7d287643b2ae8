// The true posterior p(z|x) of the image x and the terms of its bound: coarse at once, exact when x rests.

/** Values of the whole lattice, in a moment. */
function showCoarse() {
  const { subject } = state;
  const isReady = subject !== null && lattice !== null;
  update({ posterior: isReady ? { cells: coarseCells(subject.x), isRefined: false } : null, terms: null });
}

/** Refine the posterior, then compute log p(x) and the terms. Without a density q(z|x) there is only log p(x). */
function* refinePosterior() {
  const { subject } = state;
  if (subject === null || lattice === null) return;
  const { cells, isResolved } = yield* integratePosterior(subject.x, subject.q.mu);
  const evidence = isResolved ? logEvidence(cells) : NaN;
  update({ posterior: { cells, isRefined: true } });
  if (!content.stochastic || !isResolved) {
    update({ terms: { evidence } });
    return;
  }
  const { bce, kld } = yield* boundTerms(subject.x, subject.q);
  update({ terms: { evidence, bce, kld, gap: evidence + bce + kld } });
}

/** Mean and standard deviations of the posterior. */
function posteriorMoments() {
  const { cells } = state.posterior;
  const peak = peakOf(cells);
  const masses = cells.map(({ log, side }) => side * side * Math.exp(log - peak));
  const total = masses.reduce((a, b) => a + b);
  const mean = [0, 1].map((d) => cells.reduce((sum, { z }, k) => sum + (masses[k] / total) * z[d], 0));
  const sigma = [0, 1].map((d) =>
    Math.sqrt(cells.reduce((sum, { z }, k) => sum + (masses[k] / total) * (z[d] - mean[d]) ** 2, 0)));
  return { mu: mean, sigma };
}

/** Zoom to where q(z|x) and p(z|x) are. */
function zoomToPosterior() {
  const { subject, posterior } = state;
  if (!posterior) return;
  const parts = [subject.q, posteriorMoments()];
  const low = [0, 1].map((d) => Math.min(...parts.map(({ mu, sigma }) => mu[d] - 4 * sigma[d])));
  const high = [0, 1].map((d) => Math.max(...parts.map(({ mu, sigma }) => mu[d] + 4 * sigma[d])));
  showRegion(low, high);
}

function startPosterior() {
  watch(["subject", "isDecoded"], showCoarse);
  watch(["subject", "isDecoded"], inSlices(refinePosterior, REST_MS));
  $("close-up").addEventListener("click", zoomToPosterior);
}
