// The chart of the losses over the epochs.

const CHART_LEFT = 70; // CSS pixels for the text
const CHART_RIGHT = 10;

/** Draw BCE, divergence and total below each other, each on its own scale, train and test. The best epoch is dashed. */
function drawLosses() {
  const canvas = $("losses");
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (width === 0) return;
  const context = fitCanvas(canvas, width, height);
  const intervals = Math.max(1, content.losses.length - 1);
  const toX = (epoch) => CHART_LEFT + ((width - CHART_LEFT - CHART_RIGHT) * (epoch - 1)) / intervals;
  const best = toX(content.best);
  context.setLineDash([3, 3]);
  strokePath(context, [[best, 0], [best, height]], state.theme.soft, 1);
  context.setLineDash([]);
  const names = ["BCE", content.divergence, "total"];
  const pane = height / 3;
  names.forEach((name, i) => {
    const [train, test] = [0, 1].map((part) => content.losses.map((row) => row[i][part]));
    const format = name === content.divergence ? formatDivergence : (value) => value.toFixed(2);
    drawLoss(context, { name, train, test, format, toX, top: i * pane, pane });
  });
}

/** The curves of one loss, with a dot and the test set's value at the epoch on the map. */
function drawLoss(context, { name, train, test, format, toX, top, pane }) {
  const values = [...train, ...test];
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  const toY = (value) => top + 7 + ((pane - 14) * (high - value)) / (high - low || 1);
  const curves = [[train, state.theme.soft, 1.4, [5, 3]], [test, state.theme.accent, 2, []]];
  for (const [curve, color, width, dashes] of curves) {
    context.setLineDash(dashes);
    strokePath(context, curve.map((value, i) => [toX(i + 1), toY(value)]), color, width);
  }
  context.setLineDash([]);
  const epoch = shownEpoch();
  const value = test[epoch - 1];
  fillDot(context, [toX(epoch), toY(value)], 4, state.theme.ink);
  context.font = "13px system-ui, sans-serif";
  context.fillStyle = state.theme.ink;
  context.fillText(format(value), 0, top + pane / 2 + 14);
  context.fillStyle = state.theme.soft;
  context.fillText(name, 0, top + pane / 2 - 2);
}

function startLosses() {
  watch(["frame", "size", "theme"], drawLosses);
  drawLosses();
}
