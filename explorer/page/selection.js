// The selected test image: its reconstruction, its posterior and its loss.

/** Select test image i; null selects none. Does nothing until the images are loaded. */
function select(i) {
  if (!state.ready) return;
  const x = i === null ? null : pixelsOf(i);
  const posterior = i === null ? null : model.encode(x);
  update({ selected: i, posterior });
  $("told").hidden = i === null;
  $("no-story").hidden = i !== null;
  if (i !== null) describeImage(x);
}

function describeImage(x) {
  const { selected, posterior } = state;
  const name = className(content.labels[selected]);
  showImage($("input"), x);
  showImage($("reconstruction"), model.decode(posterior.mu));
  const rows = [["class", name], ["\u03bc", formatPair(posterior.mu)]];
  if (content.stochastic) rows.push(["\u03c3", formatPair(posterior.sigma)]);
  fillList($("figures"), [...rows, ...listLossTerms(x, posterior)]);
  announce(`Selected class ${name} at ${formatPair(posterior.mu)}`);
}

function drawSelection(context) {
  if (state.selected === null) return;
  drawPosterior(context, state.posterior, classColor(content.labels[state.selected]));
}
