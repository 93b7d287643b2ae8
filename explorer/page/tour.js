// The guided path: five steps from an image to what the bound leaves out. It moves the map by itself and can be left at
// any time.

const GLIDE_MS = 700;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const STEPS = [
  {
    name: "encode",
    tell: () => "The encoder looks at the image x and answers with a place on this map: the cross is its mean \u03bc, and " +
      "the blue ellipse shows how sure it is, two deviations \u03c3 wide. This cloud of places is q(z|x). Every dot is " +
      "the \u03bc of another image; its colour is its class.",
    hasHeat: false, // the posterior is the last step's
    show: () => glideTo(openingView(state.subject.q)),
  },
  {
    name: "sample",
    tell: () => "The model needs one place z, so it draws one from the cloud: z = \u03bc + \u03c3 \u03b5, where \u03b5 is " +
      "drawn from a standard normal distribution. The black dots are ten such draws. Drag the dot in the disc below, and " +
      "z follows. Why not simply draw z? There would be no slope to follow back to \u03bc and \u03c3. With this formula, " +
      "a small change of \u03bc or \u03c3 moves z in a known way, so training can improve them.",
    hasHeat: false,
    show: () => {
      const { mu, sigma } = state.subject.q;
      resample();
      $("noise").scrollIntoView({ block: "nearest" });
      glideTo({ center: mu, half: clampHalf(6 * Math.max(...sigma)) });
    },
  },
  {
    name: "decode",
    tell: () => "The decoder turns a place z into an image: for each pixel, the probability of ink. The background shows " +
      "what it draws all over the map. BCE counts, in nats, how badly the drawing predicts x. On the map, the stronger " +
      "the violet, the better the place for x, and the lower its BCE.",
    show: () => {
      chooseTerm("bce");
      glideTo(homeView());
    },
  },
  {
    name: "bound",
    tell: () => "The second cost is KLD: how far the cloud q(z|x) is from the prior p(z), in green, from which new images " +
      `are drawn.${spoken("bce", "kld")} Minus their sum is the ELBO. It is a lower bound: log p(x), how well the whole ` +
      "model explains x, is never below it. Training pushes the ELBO up.",
    show: () => {
      chooseTerm("kld");
      glideTo(homeView());
    },
  },
  {
    name: "gap",
    tell: () => "So what does the bound leave out? Where could x have come from, really? That is the true posterior " +
      "p(z|x), in orange, and the encoder's blue cloud is only a guess at it. The KL divergence between the two is " +
      `exactly what is missing between the ELBO and log p(x).${spoken("gap")} ${spokenSplit()}`,
    show: () => {
      chooseTerm("gap");
      glideTo(posteriorView() ?? homeView());
    },
  },
];

/** Whether the map shows a term, or the posterior: not in the guided path's first steps. */
function isHeatShown() {
  return state.tour === null || (STEPS[state.tour].hasHeat ?? true);
}

/** A sentence with the numbers of some terms, once they are known. */
function spoken(...names) {
  const { terms } = state;
  if (!terms || !names.every((name) => Number.isFinite(terms[name]))) return "";
  const titles = { bce: "BCE", kld: "KLD", gap: "the gap" };
  const text = names.map((name) => `${titles[name]} is ${formatNats(terms[name])}`).join(" and ");
  return ` Here, ${text} nats.`;
}

/** Why the gap is not 0, with the numbers of its parts, once they are known. */
function spokenSplit() {
  if (!state.split) return "It would be 0 if the guess were right.";
  const { approximation, amortisation } = splitAsText(state);
  return `It has two parts. Even the best Gaussian for this image, the dashed ring, misses the orange shape by ` +
    `${approximation} nats: approximation. The encoder does not find that Gaussian, because one network must serve all ` +
    `images. That costs ${amortisation} nats: amortisation.`;
}

/** Move the view to another, unless the reader moves it meanwhile. */
function glideTo(view) {
  if (calm.matches) return update({ view });
  const from = state.view;
  const start = performance.now();
  let shown = from;
  requestAnimationFrame(function frame(now) {
    if (state.view !== shown) return;
    const t = Math.min(1, Math.max(0, (now - start) / GLIDE_MS));
    const ease = t * t * (3 - 2 * t);
    shown = t === 1 ? view : {
      center: [0, 1].map((d) => from.center[d] + ease * (view.center[d] - from.center[d])),
      half: from.half * (view.half / from.half) ** ease,
    };
    update({ view: shown });
    if (t < 1) requestAnimationFrame(frame);
  });
}

function goToStep(step) {
  if (step === null || step < 0 || step >= STEPS.length) {
    leaveTour();
    return;
  }
  if (state.subject === null) select(content.first);
  if (state.subject === null) return; // the images are not unpacked yet
  $("welcome").hidden = true;
  chooseTerm(null);
  update({ tour: step, draws: [] });
  STEPS[step].show();
  $("tour").scrollIntoView({ block: "nearest" });
}

function leaveTour() {
  if (state.tour === null) return;
  chooseTerm(null);
  update({ tour: null });
  $("map").focus({ preventScroll: true });
}

function describeStep() {
  const { tour } = state;
  $("tour").hidden = tour === null;
  $("equation").hidden = !isHeatShown(); // so that the disc is near
  $("heat-key").hidden = !isHeatShown();
  if (tour === null) return;
  $("tour-title").textContent = `Step ${tour + 1} of ${STEPS.length}: ${STEPS[tour].name}`;
  $("tour-text").textContent = STEPS[tour].tell();
  $("tour-back").disabled = tour === 0;
  $("tour-next").textContent = tour + 1 === STEPS.length ? "Done" : "Next";
}

function startTour() {
  $("start-tour").hidden = !content.stochastic;
  $("start-tour").addEventListener("click", () => {
    goToStep(0);
    $("tour-title").focus();
  });
  $("tour-next").addEventListener("click", () => goToStep(state.tour + 1));
  $("tour-back").addEventListener("click", () => goToStep(state.tour - 1));
  $("tour-leave").addEventListener("click", leaveTour);
  document.addEventListener("keydown", (event) => event.key === "Escape" && leaveTour());
  watch(["tour", "terms", "split"], describeStep);
  let told = null;
  watch(["tour"], () => {
    const isNew = state.tour !== null && state.tour !== told;
    told = state.tour;
    if (isNew) announce(`${$("tour-title").textContent}. ${$("tour-text").textContent}`);
  });
}
