// A link to what the page shows: the address's part after #. It names the image, the view, epsilon, the term, the
// hidden classes, the film's frame and the step of the guided path. A drawing is not in it.

/** The state as text, such as "image=12&view=1.5,-2,0.8&term=gap". */
function stateAsText() {
  const { subject, view, epsilon, term, hidden, frame, tour } = state;
  const parts = new URLSearchParams();
  const short = (values) => values.map((value) => Number(value.toPrecision(5))).join(",");
  if (subject && subject.index !== null) parts.set("image", subject.index);
  parts.set("view", short([...view.center, view.half]));
  parts.set("epsilon", short(epsilon));
  if (term) parts.set("term", term);
  if (hidden.size) parts.set("hidden", [...hidden].join(","));
  if (!isBestShown()) parts.set("frame", frame);
  if (tour !== null) parts.set("step", tour + 1);
  return parts.toString().replaceAll("%2C", ",");
}

/** The finite numbers in a part of the address, if there are exactly n; else null. */
function numbersIn(parts, name, n) {
  const values = (parts.get(name) ?? "").split(",").map(Number);
  return parts.get(name) && values.length === n && values.every(Number.isFinite) ? values : null;
}

function isIndex(value, length) {
  return Number.isInteger(value) && value >= 0 && value < length;
}

/** Bring about the state in the address. What is missing or makes no sense is left as it is. */
function restoreState() {
  const text = location.hash.slice(1);
  if (text === stateAsText()) return;
  const parts = new URLSearchParams(text);
  const image = numbersIn(parts, "image", 1);
  if (image && isIndex(image[0], points.length)) select(image[0]);
  const step = numbersIn(parts, "step", 1);
  if (content.stochastic && step && isIndex(step[0] - 1, STEPS.length)) goToStep(step[0] - 1);
  const epsilon = numbersIn(parts, "epsilon", 2);
  if (epsilon) setEpsilon(epsilon);
  const view = numbersIn(parts, "view", 3);
  if (view && view[2] > 0) update({ view: { center: view.slice(0, 2), half: clampHalf(view[2]) } });
  if (content.stochastic && Object.hasOwn(TERMS, parts.get("term") ?? "")) chooseTerm(parts.get("term"));
  if (parts.get("hidden")) {
    hideClasses(parts.get("hidden").split(",").map(Number).filter((i) => isIndex(i, content.classes.length)));
  }
  const frame = numbersIn(parts, "frame", 1);
  if (frame && isIndex(frame[0], filmPoints.length)) showFrame(frame[0]);
}

function startLink() {
  const link = $("link");
  const refresh = () => (link.href = `#${stateAsText()}`);
  for (const kind of ["pointerdown", "focus", "pointerenter", "click"]) link.addEventListener(kind, refresh);
  link.addEventListener("click", () => announce("The address of this page now leads to what it shows."));
  window.addEventListener("hashchange", restoreState);
  watch(["ready"], restoreState);
}
