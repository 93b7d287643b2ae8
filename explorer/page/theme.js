// The colours of page.css for the canvases, which cannot use CSS variables.

const darkScheme = matchMedia("(prefers-color-scheme: dark)");

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  const classes = Array.from({ length: 10 }, (_, i) => read(`--c${i}`));
  const theme = { dark: darkScheme.matches, classes };
  for (const name of ["ink", "soft", "accent", "card"]) theme[name] = read(`--${name}`);
  return theme;
}

/** Colour of a class. It repeats after ten classes. */
function classColor(label) {
  return state.theme.classes[label % 10];
}

function startTheme() {
  update({ theme: readTheme() });
  darkScheme.addEventListener("change", () => update({ theme: readTheme() }));
}
