// Scheduling that keeps the page responsive.

const SLICE_MS = 8; // half of a frame at 60 Hz

/** A function that runs `task` at the screen's next frame, however often it is called before then. */
function oncePerFrame(task) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      task();
    });
  };
}

/**
 * A function that starts a long job after `delay` milliseconds and runs it in short slices.
 * Calling it again abandons the job and starts a new one.
 * @param job generator function that yields where it may be interrupted.
 */
function inSlices(job, delay) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    const steps = job();
    function runSlice() {
      const end = performance.now() + SLICE_MS;
      while (performance.now() < end) {
        if (steps.next().done) return;
      }
      timer = setTimeout(runSlice);
    }
    timer = setTimeout(runSlice, delay);
  };
}
