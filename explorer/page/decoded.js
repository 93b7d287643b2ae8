// The z under the pointer: decoded, and marked on the map.

function moveTo(z) {
  update({ z });
}

function showDecoded() {
  showImage($("decoded"), model.decode(state.z));
  $("z").textContent = formatPair(state.z);
  const density = Math.exp(model.logPrior(state.z));
  $("density").textContent = density < 0.001 ? density.toExponential(1) : density.toFixed(4);
}

function drawCrosshair(context) {
  const [px, py] = toScreen(state.z);
  context.strokeStyle = state.theme.ink;
  context.lineWidth = 1.5;
  context.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    context.moveTo(px + 4 * dx, py + 4 * dy);
    context.lineTo(px + 11 * dx, py + 11 * dy);
  }
  context.stroke();
}

function startDecoded() {
  watch(["z"], oncePerFrame(showDecoded));
  moveTo(state.view.center);
}
