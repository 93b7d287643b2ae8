// The image x that the page explains: a test image, or the user's drawing.

/** Select test image i; null selects none. Does nothing until the images are loaded. */
function select(i) {
  if (!state.ready) return;
  if (i === null) explain(null, null);
  else explain(pixelsOf(i), content.labels[i]);
  update({ selected: i });
  if (i !== null) announce(`Selected class ${className(content.labels[i])} at ${formatPair(state.subject.q.mu)}`);
}

/** Explain pixels x of a class; the label of a drawing is null. */
function explain(x, label) {
  update({ selected: null, subject: x && { x, label, q: model.encode(x) } });
}

function describeSubject() {
  const { subject } = state;
  $("told").hidden = subject === null;
  $("no-story").hidden = subject !== null;
  if (subject === null) return;
  const { x, q, label } = subject;
  showImage($("input"), x);
  showImage($("reconstruction"), model.decode(q.mu));
  const rows = [["class", label === null ? "your drawing" : className(label)], ["\u03bc", formatPair(q.mu)]];
  if (content.stochastic) rows.push(["\u03c3", formatPair(q.sigma)]);
  fillList($("figures"), rows);
}

/** q(z|x): a cross at its mean, and its 2 sigma ellipse; its density where it is compared with another. */
function drawSubject(context) {
  if (!state.subject || !isBestShown()) return;
  const { mu, sigma } = state.subject.q;
  if (state.term === "gap") fillGaussian(context, state.subject.q, state.theme.accent);
  const [px, py] = toScreen(mu);
  for (const [width, style] of [[5, state.theme.card], [2.5, state.theme.accent]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    if (content.stochastic) strokeEllipse(context, mu, sigma.map((s) => 2 * s));
    context.beginPath();
    context.moveTo(px - 5, py - 5);
    context.lineTo(px + 5, py + 5);
    context.moveTo(px + 5, py - 5);
    context.lineTo(px - 5, py + 5);
    context.stroke();
  }
}

function startSelection() {
  watch(["subject"], describeSubject);
}
