// The reparameterization trick by hand: a point epsilon in a standard normal disc, and z = mu + sigma * epsilon.

const DISC_REACH = 3.2; // from the disc's middle to its edge, in units of epsilon
const FARTHEST = 2.9; // of epsilon moved by hand, so that its dot stays whole
const DRAWS = 10;
const FULL_COLOR = 3; // nats of a pixel's BCE at which its colour is full
const EPSILON_STEP = 0.1; // of an arrow key; with Shift, a fifth

/** A draw of N(0, I) in two dimensions (Box and Muller). */
function drawNormal() {
  const radius = Math.sqrt(-2 * Math.log(1 - Math.random()));
  const angle = 2 * Math.PI * Math.random();
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
}

/** The samples on the map: those of the draws, and epsilon's, which is the last. */
function shownSamples() {
  return [...state.draws, state.epsilon].map((epsilon) => reparameterize(state.subject.q, epsilon));
}

function setEpsilon(epsilon) {
  update({ epsilon });
}

/** Move epsilon by hand: it stays in the disc. */
function moveEpsilon([x, y]) {
  const scale = Math.min(1, FARTHEST / (Math.hypot(x, y) || 1));
  setEpsilon([x * scale, y * scale]);
}

/** Ten draws; the disc's point is at the last of them. */
function resample() {
  const draws = Array.from({ length: DRAWS }, drawNormal);
  update({ draws, epsilon: draws[DRAWS - 1] });
  announce(`${DRAWS} draws of epsilon`);
}

function drawDisc() {
  const { theme, epsilon, draws } = state;
  const side = $("disc").clientWidth;
  const context = fitCanvas($("disc"), side, side);
  const scale = side / 2 / DISC_REACH;
  const at = ([x, y]) => [side / 2 + scale * x, side / 2 - scale * y];
  const shade = context.createRadialGradient(side / 2, side / 2, 0, side / 2, side / 2, side / 2);
  for (let i = 0; i <= 10; i++) {
    const opacity = Math.round(200 * Math.exp(-(((DISC_REACH * i) / 10) ** 2) / 2));
    shade.addColorStop(i / 10, theme.accent + opacity.toString(16).padStart(2, "0"));
  }
  fillDot(context, [side / 2, side / 2], side / 2, shade);
  for (const radius of [1, 2, 3]) {
    context.strokeStyle = theme.soft;
    context.lineWidth = 0.7;
    context.beginPath();
    context.arc(side / 2, side / 2, radius * scale, 0, 2 * Math.PI);
    context.stroke();
  }
  for (const draw of draws) drawSampleDot(context, at(draw), 3);
  drawSampleDot(context, at(epsilon), 6);
}

function drawSampleDot(context, place, radius) {
  fillDot(context, place, radius, state.theme.card);
  fillDot(context, place, radius - 1.5, state.theme.ink);
}

/** z of epsilon on the map, tied to mu, and of the ten draws. */
function drawSamples(context) {
  if (!state.subject || !content.stochastic || !isBestShown()) return;
  const samples = shownSamples().map(toScreen);
  const last = samples.length - 1;
  strokePath(context, [toScreen(state.subject.q.mu), samples[last]], state.theme.ink, 1.2);
  samples.forEach((sample, i) => drawSampleDot(context, sample, i === last ? 6 : 4));
}

/** BCE pixel by pixel at z: the stronger the violet, the more the decoder is surprised by x. */
function showPixelBce(x, decoded) {
  const image = new ImageData(28, 28);
  const rgb = toRgb(state.theme.bce);
  let sum = 0;
  for (let i = 0; i < 784; i++) {
    const p = Math.min(1 - 1e-7, Math.max(1e-7, decoded[i]));
    const nats = -x[i] * Math.log(p) - (1 - x[i]) * Math.log(1 - p);
    sum += nats;
    image.data.set([...rgb, 255 * Math.min(1, nats / FULL_COLOR)], 4 * i);
  }
  $("pixel-bce").getContext("2d").putImageData(image, 0, 0);
  $("pixel-bce").setAttribute("aria-label", `BCE of each pixel at z, ${formatNats(sum)} nats together`);
  $("pixel-sum").textContent = formatNats(sum);
}

function showSample() {
  const { epsilon, subject } = state;
  if (!subject) return;
  const z = reparameterize(subject.q, epsilon);
  const decoded = model.decode(z);
  showImage($("sampled"), decoded);
  showPixelBce(subject.x, decoded);
  $("epsilon").textContent = formatPair(epsilon);
  $("sample").textContent = formatPair(z);
}

function showDraws() {
  const { subject, draws } = state;
  $("draws").hidden = draws.length === 0;
  if (!subject || draws.length === 0) return;
  const strip = $("draws");
  const image = makeCanvas(28, 28);
  strip.width = 28 * DRAWS;
  draws.forEach((epsilon, i) => {
    showImage(image, model.decode(reparameterize(subject.q, epsilon)));
    strip.getContext("2d").drawImage(image, 28 * i, 0);
  });
}

function listenToDisc() {
  const disc = $("disc");
  let pointer = null; // id of the one that drags
  const follow = (event) => {
    const side = disc.clientWidth;
    const scale = side / 2 / DISC_REACH;
    moveEpsilon([(event.offsetX - side / 2) / scale, (side / 2 - event.offsetY) / scale]);
  };
  disc.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pointer !== null) return;
    pointer = event.pointerId;
    disc.setPointerCapture(pointer);
    follow(event);
  });
  disc.addEventListener("pointermove", (event) => {
    if (event.pointerId === pointer) follow(event);
  });
  disc.addEventListener("lostpointercapture", (event) => {
    if (event.pointerId === pointer) pointer = null;
  });
  disc.addEventListener("keydown", (event) => {
    const { key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? EPSILON_STEP / 5 : EPSILON_STEP;
    if (key in ARROWS) moveEpsilon(state.epsilon.map((e, d) => e + step * ARROWS[key][d]));
    else if (key === "0") setEpsilon([0, 0]);
    else if (key === "Enter") setEpsilon(drawNormal());
    else return;
    event.preventDefault();
    if (state.subject) announce(`epsilon = ${formatPair(state.epsilon)}, z = ${formatPair(shownSamples().pop())}`);
  });
}

function startEpsilon() {
  $("noise").hidden = !content.stochastic;
  watch(["epsilon", "subject", "theme"], oncePerFrame(showSample));
  watch(["draws", "subject"], oncePerFrame(showDraws));
  watch(["epsilon", "draws", "theme", "size", "subject"], oncePerFrame(drawDisc)); // without a subject it has no size
  $("draw-one").addEventListener("click", () => setEpsilon(drawNormal()));
  $("resample").addEventListener("click", resample);
  listenToDisc();
}
