// The equation log p(x) = -BCE - KLD + KL(q(z|x) || p(z|x)): its numbers, its bar, and what its terms are on the map.

const BAR_NATS = 40; // of the bar's right end that are shown, so that its small terms can be seen
const WORST_FIT = 100; // nats below the best z at which the map of log p(x|z) fades out

const TERMS = {
  evidence: "p(x) is the sum of p(x|z) p(z) over all z. It comes from where the true posterior p(z|x) is, in orange.",
  bce: "log p(x|z) at every z: violet where the decoder draws x well. BCE is its mean under q(z|x), the blue ellipse.",
  kld: "The prior p(z), in green. KLD is what it costs that q(z|x), the blue ellipse, is not the prior.",
  gap: "q(z|x), in blue, over the true posterior p(z|x), in orange. Their KL divergence is the bound's gap.",
};
/** The key's words for what the map shows as a heat map. */
const HEAT = { bce: "p(x|z): how well z explains x", kld: "the prior p(z)", gap: "p(z|x), the true posterior" };
const NO_TERM = "Point at a term to see it on the map.";
const NO_BOUND = "This encoder is deterministic: q(z|x) is a single point and has no density. Both KL divergences would " +
  "be infinite, so there is no bound on log p(x). It was trained to make the codes of all images match the prior (MMD). " +
  "log p(x) and the true posterior exist all the same.";

let chosenTerm = null; // by a click
let pointedTerm = null; // by the mouse or the focus
let termPicture = null; // of the highlighted term, or of the posterior

function showEquation() {
  const { subject, terms } = state;
  for (const name of Object.keys(TERMS)) {
    $(`value-${name}`).textContent = terms && Number.isFinite(terms[name]) ? formatNats(terms[name]) : waiting(subject);
  }
  $("equation").setAttribute("aria-busy", subject !== null && terms === null);
  const isResolved = terms === null || Object.values(terms).every(Number.isFinite);
  $("unresolved").hidden = isResolved;
  for (const name of ["bar", "bar-note"]) $(name).hidden = !content.stochastic || !isResolved || subject === null;
  $("bar").classList.toggle("empty", terms === null);
  if (terms && Number.isFinite(terms.gap)) showBar(terms);
}

/** What stands for a number that is being computed, or that there is not. */
function waiting(subject) {
  return subject !== null && state.terms === null ? "\u2026" : "\u2013";
}

/** Two rows of equal length: BCE + KLD, which is -ELBO, and -log p(x) + gap. Both are cut at the left. */
function showBar({ evidence, bce, kld, gap }) {
  const cut = Math.max(0, bce + kld - Math.max(BAR_NATS, 1.25 * kld, 1.25 * gap));
  const lengths = { bce: bce - cut, kld, evidence: -evidence - cut, gap: Math.max(0, gap) };
  for (const [name, nats] of Object.entries(lengths)) $(`bar-${name}`).style.flexGrow = nats;
  $("bar").dataset.cut = cut > 0;
  $("bar").setAttribute("aria-label", `BCE ${formatNats(bce)} and KLD ${formatNats(kld)} are together as long as ` +
    `minus log p(x), ${formatNats(-evidence)}, and the gap, ${formatNats(gap)}`);
}

/** What the map shows of a term. */
function paintTerm() {
  const { term, posterior, theme, subject } = state;
  termPicture = null;
  if (!posterior) return;
  if (term === "bce") {
    const logs = gridLikelihood(subject.x, lattice[0]);
    const best = logs.reduce((a, b) => Math.max(a, b));
    termPicture = paintLattice(logs.map((log) => Math.max(0, 1 - (best - log) / WORST_FIT) ** 2), theme.bce);
  } else if (term === "kld") {
    const logs = Float32Array.from(lattice[0].logPrior);
    const best = logs.reduce((a, b) => Math.max(a, b));
    termPicture = paintLattice(logs.map((log) => Math.exp(log - best)), theme.kld);
  } else {
    termPicture = paintCells(posterior.cells, theme.gap);
  }
}

function drawTerm(context) {
  if (termPicture && isBestShown() && isHeatShown()) drawPicture(context, termPicture, state.term === "kld" ? 0.6 : 0.85);
}

/** Show what is pointed at, or else what was chosen by a click. */
function showTerm() {
  const term = pointedTerm ?? chosenTerm;
  if (term !== state.term) update({ term });
  for (const button of $("equation").querySelectorAll("[data-term]")) {
    button.setAttribute("aria-pressed", button.dataset.term === chosenTerm);
  }
  $("heat-key").textContent = HEAT[term] ?? HEAT.gap;
  $("heat-key").style.setProperty("--term", `var(--${term === "bce" || term === "kld" ? term : "gap"})`);
  const hint = !content.stochastic ? NO_BOUND : term === null ? NO_TERM : TERMS[term];
  if (term !== null && hint !== $("term-hint").textContent) announce(hint);
  $("term-hint").textContent = hint;
}

function chooseTerm(term) {
  chosenTerm = term;
  pointedTerm = null;
  showTerm();
}

/** A term shows while a mouse points at it or the keyboard is at it; a click or a tap keeps it, until the next. */
function listenToTerm(button) {
  const { term } = button.dataset;
  function point(to) {
    pointedTerm = to;
    showTerm();
  }
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && point(term));
  button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(null));
  button.addEventListener("focus", () => button.matches(":focus-visible") && point(term));
  button.addEventListener("blur", () => point(null));
  button.addEventListener("click", () => chooseTerm(chosenTerm === term ? null : term));
}

function startEquation() {
  $("bound").hidden = !content.stochastic;
  $("bar").hidden = !content.stochastic;
  if (!content.stochastic) {
    $("equation-title").textContent = "For this x: log p(x)";
    $("encoding-key").textContent = "the code of x";
    $("welcome").hidden = true; // it speaks of epsilon and of terms
  }
  for (const button of $("equation").querySelectorAll("[data-term]")) listenToTerm(button);
  watch(["term", "posterior", "theme"], paintTerm);
  watch(["subject", "terms"], showEquation);
  showTerm();
}
