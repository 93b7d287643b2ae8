// The image x that the page explains: a test image, or the user's drawing.

/** Select test image i; null selects none. Does nothing until the images are loaded. */
function select(i) {
  if (!state.ready) return;
  explain(i === null ? null : pixelsOf(i), i);
  if (i !== null) announce(`Selected class ${className(content.labels[i])} at ${formatPair(state.subject.q.mu)}`);
}

/** Explain pixels x; the index is that of a test image, or null for a drawing. */
function explain(x, index) {
  update({ subject: x && { x, index, q: model.encode(x) } });
}

function describeSubject() {
  const { subject } = state;
  $("told").hidden = subject === null;
  $("no-story").hidden = subject !== null;
  if (subject === null) return;
  const { x, q, index } = subject;
  showImage($("input"), x);
  showImage($("reconstruction"), model.decode(q.mu));
  const rows = [["class", index === null ? "your drawing" : className(content.labels[index])], ["\u03bc", formatPair(q.mu)]];
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
