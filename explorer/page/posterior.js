// The true posterior p(z|x) of the image x and the terms of its bound: coarse at once, exact when x rests.

/** Values of the whole lattice, in a moment. */
function showCoarse() {
  const { subject } = state;
  const isReady = subject !== null && state.isDecoded;
  update({ posterior: isReady ? { cells: coarseCells(subject.x), isRefined: false } : null, terms: null, split: null });
}

/** Refine the posterior, then compute log p(x) and the terms. Without a density q(z|x) there is only log p(x). */
function* refinePosterior() {
  const { subject } = state;
  if (subject === null || !state.isDecoded) return;
  const { cells, isResolved } = yield* integratePosterior(subject.x, subject.q.mu);
  const evidence = isResolved ? logEvidence(cells) : NaN;
  update({ posterior: { cells, isRefined: true } });
  if (!content.stochastic || !isResolved) {
    update({ terms: { evidence } });
    return;
  }
  const { bce, kld } = yield* boundTerms(subject.x, subject.q);
  const gap = evidence + bce + kld;
  update({ terms: { evidence, bce, kld, gap } });
  announce(`log p(x) is ${formatNats(evidence)} nats: BCE ${formatNats(bce)}, KLD ${formatNats(kld)}, gap ` +
    formatNats(gap));
  if (Number.isFinite(gap)) update({ split: yield* splitGap(subject, cells, state.terms) });
}

/** Mean and standard deviations of the posterior in these cells. */
function posteriorMoments(cells) {
  const peak = peakOf(cells);
  const masses = cells.map(({ log, side }) => side * side * Math.exp(log - peak));
  const total = masses.reduce((a, b) => a + b);
  const mean = [0, 1].map((d) => cells.reduce((sum, { z }, k) => sum + (masses[k] / total) * z[d], 0));
  const sigma = [0, 1].map((d) =>
    Math.sqrt(cells.reduce((sum, { z }, k) => sum + (masses[k] / total) * (z[d] - mean[d]) ** 2, 0)));
  return { mu: mean, sigma };
}

/** The view that holds q(z|x) and p(z|x); null without an image. */
function posteriorView() {
  const { subject, posterior } = state;
  if (!posterior) return null;
  const parts = [subject.q, posteriorMoments(posterior.cells)];
  const low = [0, 1].map((d) => Math.min(...parts.map(({ mu, sigma }) => mu[d] - 4 * sigma[d])));
  const high = [0, 1].map((d) => Math.max(...parts.map(({ mu, sigma }) => mu[d] + 4 * sigma[d])));
  const half = clampHalf(Math.max(high[0] - low[0], high[1] - low[1]) / 2);
  return { center: [0, 1].map((d) => (low[d] + high[d]) / 2), half };
}

function zoomToPosterior() {
  const view = posteriorView();
  if (view) update({ view });
}

function startPosterior() {
  watch(["subject", "isDecoded"], showCoarse);
  const refine = inSlices(refinePosterior, REST_MS);
  watch(["subject"], () => refine());
  watch(["isDecoded"], () => refine(0));
  $("close-up").addEventListener("click", zoomToPosterior);
}
