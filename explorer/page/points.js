// The test images as points on the map, and the legend that hides classes.

/** Where the points are: the means after the best epoch, or those of the film's frame. */
function shownPoints() {
  return state.frame === null ? points : filmPoints[state.frame];
}

function isHidden(i) {
  return state.hidden.has(content.labels[i]);
}

function drawPoints(context) {
  const size = Math.max(3, Math.min(6, state.size[0] / 170));
  shownPoints().forEach((z, i) => {
    if (isHidden(i)) return;
    const [px, py] = toScreen(z);
    context.fillStyle = classColor(content.labels[i]);
    context.fillRect(px - size / 2, py - size / 2, size, size);
  });
}

/** Index of the visible point nearest to z, or null if none is within `radius` CSS pixels. */
function findNearest(z, radius) {
  const [px, py] = toScreen(z);
  let nearest = null;
  let least = radius;
  shownPoints().forEach((point, i) => {
    if (isHidden(i)) return;
    const [x, y] = toScreen(point);
    const distance = Math.hypot(x - px, y - py);
    if (distance >= least) return;
    nearest = i;
    least = distance;
  });
  return nearest;
}

function toggleClass(label) {
  const hidden = new Set(state.hidden);
  if (!hidden.delete(label)) hidden.add(label);
  update({ hidden });
}

/** One button per class. */
function startLegend() {
  const labels = [...new Set(content.labels)].sort((a, b) => a - b);
  for (const label of labels) {
    const button = document.createElement("button");
    button.textContent = className(label);
    button.style.setProperty("--color", `var(--c${label})`);
    button.setAttribute("aria-label", `Class ${className(label)}`);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      toggleClass(label);
      button.setAttribute("aria-pressed", !state.hidden.has(label));
    });
    $("legend").append(button);
  }
}
