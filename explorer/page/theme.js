// The colours of page.css for the canvases, which cannot use CSS variables.

const CLASS_COLORS = 20;
const darkScheme = matchMedia("(prefers-color-scheme: dark)");

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  const classes = Array.from({ length: CLASS_COLORS }, (_, i) => read(`--c${i}`));
  const theme = { dark: darkScheme.matches, classes };
  for (const name of ["ink", "soft", "accent", "card", "bce", "kld", "gap"]) theme[name] = read(`--${name}`);
  return theme;
}

/** Colour of a class, of which there are at most twenty. */
function classColor(label) {
  return state.theme.classes[label];
}

function startTheme() {
  update({ theme: readTheme() });
  darkScheme.addEventListener("change", () => update({ theme: readTheme() }));
}
