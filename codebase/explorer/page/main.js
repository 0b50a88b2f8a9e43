// The page: a model, what its parts share, and the parts.

import { decodeView } from "./decode.js";
import { byId } from "./dom.js";
import { encodeView } from "./encode.js";
import { Names, formulasOf } from "./formulas.js";
import { labelsView } from "./labels.js";
import { Model, effectiveSampleSize, iwae, largestDifference } from "./model.js";
import { State } from "./state.js";
import { readPage } from "./tensors.js";
import { tightenView } from "./tighten.js";

const page = readPage();
const model = new Model(page);
const state = new State();
const timings = {};
const parts = {
  model, page, state, timings, random: Math.random, names: new Names(formulasOf(model, page.kind)),
};

decodeView(parts);
encodeView(parts);
const tightening = tightenView(parts);
if (model.yDim) labelsView(parts);
byId("labels").hidden = !model.yDim;
byId("to-labels").hidden = !model.yDim;

byId("about").textContent = page.about;
const difference = largestDifference(model, page.checks);
byId("difference").textContent =
  `The largest relative difference between this page's numbers and PyTorch's, in ` +
  `${page.checks.length} examples: ${difference.toExponential(1)}.`;
byId("difference").classList.toggle("wrong", !(difference < 1e-4));

const theme = byId("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
theme.addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
});

// For the browser's console, and for tests.
window.explorer = {
  model, page, state, timings, difference, tightening, iwae, effectiveSampleSize,
};
