// The gap in two parts, as studies/gap.py splits it. The best Gaussian q*(z|x) is searched for this image alone. What
// it leaves is the approximation gap: no Gaussian does better. The rest is the amortisation gap: the price of one
// encoder that answers for all images.

const SEARCH_STEP = 0.9; // distance of the nodes, in sigmas
const SEARCH_ROUNDS = 60; // at most
const SEARCH_GAIN = 0.002; // nats: a round that gains less ends the search
const LARGEST_CHANGE = 2; // of a sigma in one round, as a factor; mu moves by at most as many sigmas

/** log p(x, z) at the nodes under q, weighted: { elbo, slopes, curvatures }, the last two for mu's coordinates. */
function* momentsUnder(x, q) {
  let mean = 0;
  const slopes = [0, 0];
  const curvatures = [0, 0];
  for (const { epsilon, weight } of makeNodes(SEARCH_STEP)) {
    const z = reparameterize(q, epsilon);
    const log = model.logLikelihood(x, z) + model.logPrior(z);
    mean += weight * log;
    for (const d of [0, 1]) {
      slopes[d] += (weight * epsilon[d] * log) / q.sigma[d];
      curvatures[d] += (weight * (epsilon[d] ** 2 - 1) * log) / q.sigma[d] ** 2;
    }
    yield;
  }
  const entropy = 1 + Math.log(2 * Math.PI * q.sigma[0] * q.sigma[1]);
  return { elbo: mean + entropy, slopes, curvatures };
}

/** One step of Newton's method on the ELBO, a part `rate` of it: the expected slope and curvature say where to. */
function improve({ mu, sigma }, { slopes, curvatures }, rate) {
  const next = { mu: [], sigma: [] };
  for (const d of [0, 1]) {
    const precision = (1 - rate) / sigma[d] ** 2 - rate * curvatures[d];
    const s = precision > 0 ? 1 / Math.sqrt(precision) : Infinity;
    next.sigma[d] = Math.min(sigma[d] * LARGEST_CHANGE, Math.max(sigma[d] / LARGEST_CHANGE, s));
    const step = rate * slopes[d] * next.sigma[d] ** 2;
    const limit = LARGEST_CHANGE * next.sigma[d];
    next.mu[d] = mu[d] + Math.min(limit, Math.max(-limit, step));
  }
  return next;
}

/** The Gaussian near q with the highest ELBO. */
function* searchFrom(x, q) {
  let moments = yield* momentsUnder(x, q);
  let rate = 1;
  for (let round = 0; round < SEARCH_ROUNDS && rate > 0.01; round++) {
    const next = improve(q, moments, rate);
    const found = yield* momentsUnder(x, next);
    const gain = found.elbo - moments.elbo;
    if (gain > 0) {
      q = next;
      moments = found;
      rate = Math.min(1, 2 * rate);
    } else {
      rate /= 3;
    }
    if (gain > 0 && gain < SEARCH_GAIN) break;
  }
  return q;
}

/** The best Gaussian q* and the gap's parts, { q, approximation, amortisation }, nats. */
function* splitGap({ x, q }, cells, { evidence, bce, kld }) {
  let best = { q, elbo: -bce - kld };
  for (const start of [q, posteriorMoments(cells)]) {
    const found = yield* searchFrom(x, start);
    const terms = yield* boundTerms(x, found);
    const elbo = -terms.bce - terms.kld;
    if (elbo > best.elbo) best = { q: found, elbo };
  }
  return { q: best.q, approximation: evidence - best.elbo, amortisation: best.elbo + bce + kld };
}

/** Both parts of the gap as text; rounded, they still add up to it. */
function splitAsText({ split, terms }) {
  const approximation = Number(split.approximation.toFixed(2));
  const amortisation = Number(terms.gap.toFixed(2)) - approximation;
  return { approximation: formatNats(approximation), amortisation: formatNats(amortisation) };
}

function describeSplit() {
  const { split, subject, term, terms } = state;
  $("split").hidden = !content.stochastic || subject === null || (terms !== null && !Number.isFinite(terms.gap));
  $("elbo").textContent = terms && Number.isFinite(terms.gap) ? formatNats(-terms.bce - terms.kld) : "\u2026";
  const parts = split && terms ? splitAsText(state) : { approximation: "\u2026", amortisation: "\u2026" };
  for (const [name, text] of Object.entries(parts)) $(name).textContent = text;
  $("best-key").hidden = term !== "gap" || !split;
}

/** q*(z|x): a dashed ellipse beside that of q(z|x). */
function drawBest(context) {
  if (state.term !== "gap" || !state.split || !isBestShown()) return;
  const { mu, sigma } = state.split.q;
  context.setLineDash([6, 4]);
  for (const [width, style] of [[4, state.theme.card], [2, state.theme.ink]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    strokeEllipse(context, mu, sigma.map((s) => 2 * s));
  }
  context.setLineDash([]);
}

function startGap() {
  watch(["split", "subject", "term", "terms"], describeSplit);
  describeSplit();
}
