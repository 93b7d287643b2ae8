// The pad: the user's drawing, explained while it is drawn. The drawing is an array; the canvas only shows it.

const PAD_SIDE = 224; // pixels
const BRUSH_RADIUS = 8.5; // pixels

const pad = $("pad");
const drawing = new Float32Array(PAD_SIDE ** 2); // ink from 0 to 1

function clearPad() {
  drawing.fill(0);
  showPad({ left: 0, top: 0, right: PAD_SIDE, bottom: PAD_SIDE });
  showImage($("centred"), asInData(new Float32Array(784)));
  if (isDrawingExplained()) explain(null, null);
}

/** Draw a line with round ends, from one [x, y] to another. */
function drawStroke(from, to) {
  const reach = BRUSH_RADIUS + 1;
  const part = {
    left: Math.max(0, Math.floor(Math.min(from[0], to[0]) - reach)),
    top: Math.max(0, Math.floor(Math.min(from[1], to[1]) - reach)),
    right: Math.min(PAD_SIDE, Math.ceil(Math.max(from[0], to[0]) + reach)),
    bottom: Math.min(PAD_SIDE, Math.ceil(Math.max(from[1], to[1]) + reach)),
  };
  for (let y = part.top; y < part.bottom; y++) {
    for (let x = part.left; x < part.right; x++) {
      const covered = BRUSH_RADIUS + 0.5 - distanceToLine([x + 0.5, y + 0.5], from, to);
      const k = y * PAD_SIDE + x;
      drawing[k] = Math.max(drawing[k], Math.min(1, covered));
    }
  }
  showPad(part);
}

/** Distance of a point from the line between two others. */
function distanceToLine([x, y], [x0, y0], [x1, y1]) {
  const length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2;
  const along = length2 === 0 ? 0 : ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length2;
  const t = Math.max(0, Math.min(1, along));
  return Math.hypot(x - x0 - t * (x1 - x0), y - y0 - t * (y1 - y0));
}

/** Show a part of the drawing on the canvas, black on white. */
function showPad({ left, top, right, bottom }) {
  if (right <= left || bottom <= top) return;
  const image = new ImageData(right - left, bottom - top);
  image.data.fill(255);
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const grey = 255 * (1 - drawing[y * PAD_SIDE + x]);
      image.data.fill(grey, 4 * ((y - top) * image.width + x - left), 4 * ((y - top) * image.width + x - left) + 3);
    }
  }
  pad.getContext("2d").putImageData(image, left, top);
}

/** A drawing in the tones of the images that the network knows: some are dark on light. */
function asInData(ink) {
  return content.lightPaper ? ink.map((p) => 1 - p) : ink;
}

function encodeDrawing() {
  const centred = centreDrawing(drawing, PAD_SIDE);
  if (!centred) return;
  const x = asInData(centred);
  showImage($("centred"), x);
  explain(x, null);
}

function isDrawingExplained() {
  return state.subject !== null && state.subject.index === null;
}

function listenToPad() {
  const encodeSoon = oncePerFrame(encodeDrawing);
  let pointer = null; // the id of the pointer that draws
  let last = null; // where it was

  function drawTo(event) {
    const scale = PAD_SIDE / pad.clientWidth;
    const now = [event.offsetX * scale, event.offsetY * scale];
    drawStroke(last ?? now, now);
    last = now;
    encodeSoon();
  }

  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pointer !== null) return;
    pad.setPointerCapture(event.pointerId);
    pointer = event.pointerId;
    last = null;
    drawTo(event);
  });
  pad.addEventListener("pointermove", (event) => {
    if (event.pointerId === pointer) drawTo(event);
  });
  pad.addEventListener("lostpointercapture", (event) => {
    if (event.pointerId === pointer) pointer = null;
  });
}

function startPad() {
  $("clear").addEventListener("click", clearPad);
  listenToPad();
  clearPad();
}
