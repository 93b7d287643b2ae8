// The run that the page shows, as explorer/__init__.py writes it into the page.

const content = JSON.parse(document.getElementById("content").textContent);
const model = makeModel(content);

/** Mean mu of each test image after the best epoch: [[z1, z2], ...]. */
const points = toPairs(unpackFloat16(content.means));

/** The same for each frame of the film. */
const filmPoints = splitFrames(unpackFloat16(content.film.means));

function toPairs(flat) {
  return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
}

function splitFrames(flat) {
  const length = 2 * points.length;
  return content.film.epochs.map((_, i) => toPairs(flat.subarray(i * length, (i + 1) * length)));
}

/** Name of the class with an integer label. */
function className(label) {
  return content.classes[label];
}
