// Classify and separate: q(y|x) and the sum over labels (SSVAE); one style in ten classes.

import { bar, byId, drawImage, element, imageCanvas, shown, soon } from "./dom.js";
import { meanOf } from "./formulas.js";

export function labelsView({ model, page, state, names }) {
  const section = byId("labels");
  const place = names.place();
  section.append(place);
  if (model.classifies) section.append(terms({ model, state, names, place }));
  section.append(
    element("h3", {}, "One style in ten classes"),
    element("p", {}, names.name("mean", meanOf(model), place), " at the z of the sliders above, for " +
      "each y: the label y gives the digit, z gives the handwriting style."),
    row({ model, page, state }),
  );
}

/** The ten terms of the bound's sum over labels. */
function terms({ model, state, names, place }) {
  const rows = Array.from({ length: model.yDim }, () => ({
    q: element("td"), bar: bar(), kl: element("td"), rec: element("td"), term: element("td"),
  }));
  const sum = { kl: element("td"), rec: element("td"), term: element("td") };
  const heading = (key, text) => element("th", { scope: "col" }, names.name(key, text, place));

  state.on(["estimate"], ({ estimate }) => {
    for (const { y, share, kl, rec } of estimate.parts) {
      rows[y].q.textContent = shown(share, 4);
      rows[y].bar.show(share);
      rows[y].kl.textContent = shown(kl);
      rows[y].rec.textContent = shown(rec);
      rows[y].term.textContent = shown(share * (kl + rec));
    }
    sum.kl.textContent = shown(estimate.kl);
    sum.rec.textContent = shown(estimate.rec);
    sum.term.textContent = shown(estimate.kl + estimate.rec);
  });

  const table = element("table", { id: "label-terms" },
    element("thead", {}, element("tr", {},
      element("th", { scope: "col" }, "y"),
      element("th", { scope: "col", colspan: 2 }, names.name("qy", "q(y|x)", place)),
      heading("klOfY", "KL_z(y)"), heading("recOfY", "Rec(y)"), heading("term", "weighted"))),
    element("tbody", {}, ...rows.map((cells, y) => element("tr", {},
      element("th", { scope: "row" }, String(y)), element("td", { class: "wide" }, cells.bar),
      cells.q, cells.kl, cells.rec, cells.term))),
    element("tfoot", {}, element("tr", {},
      element("th", { scope: "row", colspan: 3 }, "Σ q(y|x)·…"), sum.kl, sum.rec, sum.term)));
  return element("div", { class: "scroll" }, table);
}

/** Ten images, a class each, of one z. */
function row({ model, page, state }) {
  const canvases = Array.from({ length: model.yDim }, (_, y) =>
    imageCanvas(page.shape, `class ${y}`),
  );
  const buttons = canvases.map((canvas, y) => element("button", {
    type: "button", class: "image", "aria-label": `decode class ${y}`, click: () => state.set({ y }),
  }, canvas, element("span", {}, String(y))));
  let drawn = null; // the z that is being drawn, a class after another

  function begin() {
    drawn = state.values.z;
    soon(() => draw(0));
  }

  function draw(y) {
    drawImage(canvases[y], page.shape, model.mean(model.decode(drawn, y)));
    if (state.values.z !== drawn) begin();
    else if (y + 1 < model.yDim) soon(() => draw(y + 1));
    else drawn = null;
  }

  state.on(["z"], () => {
    if (drawn === null) begin();
  });
  state.on(["y"], ({ y }) => {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === y)));
  });
  return element("div", { class: "row" }, ...buttons);
}
