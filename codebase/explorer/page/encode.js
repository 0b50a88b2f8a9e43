// Encode: an image, its posterior, its reconstruction and its bound, term by term.

import { FIRST, bar, byId, drawImage, element, imageCanvas, shown, svg, zName } from "./dom.js";
import { Estimate } from "./estimate.js";
import { meanOf } from "./formulas.js";
import { drawingPad } from "./pad.js";

const BUDGET = 8; // milliseconds of drawing before the page may do something else
const MOST_DRAWS = 1000;
const DRAWING = "your drawing";

export function encodeView({ model, page, state, names }) {
  const { shape, images } = page;
  const section = byId("encode");
  const place = names.place();

  // Choosing an image

  const image = (i) => Float64Array.from(
    images.x.subarray(i * model.xDim, (i + 1) * model.xDim), (value) => value / 255,
  );
  const nameOf = (i) => {
    const label = images.labels ? `: a ${images.labels[i]}` : "";
    return `${images.source} ${i + 1}${label}`;
  };

  function choose(x, name, label = null) {
    let y = label;
    if (model.classifies) y = likeliest(model.classify(x));
    if (!model.yDim) y = null;
    else if (y === null) y = state.values.label ?? 0;
    state.set({ x, name, label: y, y: y ?? 0, z: model.encode(x, y).m });
  }

  let last = 0; // the image that was chosen

  function chosen(i) {
    last = i;
    choose(image(i), nameOf(i), images.labels ? images.labels[i] : null);
  }

  const thumbnails = element("div", {
    class: "thumbnails", role: "radiogroup", "aria-label": "images to encode",
  });
  for (let i = 0; i < images.count; i++) {
    const canvas = imageCanvas(shape, nameOf(i));
    drawImage(canvas, shape, image(i));
    const input = element("input", {
      type: "radio", name: "image", value: i, checked: i === 0, change: () => chosen(i),
    });
    thumbnails.append(element("label", { title: nameOf(i) }, input, canvas));
  }
  const radios = () => thumbnails.querySelectorAll("input");
  const pad = drawingPad(shape, {
    isShown: () => state.values.name === DRAWING,
    changed: (grey) => {
      const seen = model.likelihood.binary ? grey.map((value) => (value > 0.5 ? 1 : 0)) : grey;
      for (const input of radios()) input.checked = false;
      choose(seen, DRAWING);
    },
    cleared: () => {
      radios()[last].checked = true;
      chosen(last);
    },
  });

  // What it is given where labels are observed

  const labels = element("div", {
    class: "classes", role: "group", "aria-label": "label of the image",
  });
  const buttons = Array.from({ length: model.yDim }, (_, label) =>
    element("button", {
      type: "button",
      click: () => state.set({ label, y: label, z: model.encode(state.values.x, label).m }),
    }, `${label}`),
  );
  if (model.yDim) {
    labels.append(model.classifies ? "q(z|x, y) for y = " : "its label y = ", ...buttons);
  }

  // Posterior

  const [given, posterior] = model.yDim ? ["x, y", "q(z|x, y)"] : ["x", "q(z|x)"];
  const seen = imageCanvas(shape, "the image as the model sees it", { class: "large" });
  const reconstruction = imageCanvas(shape, "its reconstruction", { class: "large" });
  const caption = element("figcaption");
  const numbers = {
    nelbo: names.number("nelbo", "NELBO", place),
    kl: names.number("kl", model.classifies ? "KL_z" : "KL", place),
    rec: names.number("rec", "Rec", place),
  };
  if (model.classifies) numbers.kly = names.number("kly", "KL_y", place);
  let estimate = null;
  const drawn = element("p", { class: "small" });
  const announced = element("p", { class: "unseen", role: "status" });
  const rows = new Map();
  const body = element("tbody");
  const table = element("table", { class: "posterior" },
    element("thead", {}, element("tr", {},
      element("th", { scope: "col" }, "dimension"),
      element("th", { scope: "col" }, names.name("q", `${posterior}, mean ± sd`, place)),
      element("th", { scope: "col", class: "interval" }, "beside the prior"),
      element("th", { scope: "col" }, names.name("klOne", "KL", place)))),
    body);
  const between = element("p");
  if (model.mixture) {
    numbers.between = names.number("between", "between the dimensions", place);
    between.append(numbers.between);
  }
  const more = element("button", { type: "button", click: () => addRows(50) }, "more dimensions");

  function addRows(count) {
    for (const d of page.order.slice(rows.size, rows.size + count)) {
      const cells = {
        text: element("td"), interval: interval(model.priorMoments(d)), bar: bar(),
        kl: element("span"),
      };
      rows.set(d, cells);
      body.append(element("tr", {}, element("th", { scope: "row" }, zName(d)), cells.text,
        element("td", { class: "interval", "aria-hidden": "true" }, cells.interval),
        element("td", {}, element("span", { class: "kl" }, cells.bar, cells.kl))));
    }
    more.hidden = rows.size >= model.zDim;
    show();
  }

  function begin({ x, label, name }) {
    estimate = new Estimate(model, x, label);
    drawImage(seen, shape, x);
    drawImage(reconstruction, shape, model.mean(model.decode(estimate.own.q.m, label)));
    caption.textContent = `x, ${name}`;
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === label)));
    refine(estimate);
  }

  function refine(current) {
    if (current !== estimate) return; // there is another image
    const begun = performance.now();
    do current.add(1);
    while (performance.now() - begun < BUDGET && current.draws < MOST_DRAWS);
    state.set({ estimate });
    if (current.draws < MOST_DRAWS) setTimeout(() => refine(current), 30);
    else announce(current);
  }

  /** For who hears the page: once, when the numbers have settled. */
  function announce({ nelbo, rec }) {
    const text = `NELBO ${shown(nelbo)} nats, KL ${shown(nelbo - rec)}, Rec ${shown(rec)}`;
    announced.textContent = `${state.values.name}: ${text}`;
  }

  function show() {
    if (!estimate) return;
    const { q, dimensions } = estimate.own;
    for (const [key, number] of Object.entries(numbers)) number.show(estimate[key]);
    const shares = model.classifies ? ", labels in proportion to q(y|x)" : "";
    drawn.textContent = `means over ${estimate.draws} draws of z${shares}`;
    const most = Math.max(...dimensions, 1e-9);
    for (const [d, cells] of rows) {
      const deviation = model.family.deviation(q.v[d]);
      cells.text.textContent = `${shown(q.m[d])} ± ${shown(deviation)}`;
      cells.interval.show(q.m[d], deviation);
      cells.kl.textContent = shown(dimensions[d]);
      cells.bar.show(dimensions[d] / most);
    }
  }

  section.append(
    element("p", {}, "Choose an image, or draw a digit. The encoder gives ",
      names.name("q", posterior, place),
      "; Rec is the cost of the image given z, KL the cost of z."),
    element("div", { class: "beside" },
      element("div", { class: "wide" }, thumbnails,
        element("div", { class: "pair" },
          element("figure", {}, seen, caption),
          element("figure", {}, reconstruction, element("figcaption", {},
            names.name("mean", meanOf(model), place), ` at z = m(${given})`)))),
      element("div", {},
        element("p", { class: "small" }, "draw here, with mouse, finger or keys"), pad)),
    labels,
    place,
    element("p", { class: "numbers" }, ...Object.keys(numbers).filter((key) =>
      key !== "between").map((key) => numbers[key])),
    drawn, announced, element("div", { class: "scroll" }, table), more, between,
    interpolation({ model, page, state, nameOf, image }),
  );
  state.on(["x", "label"], begin);
  state.on(["estimate"], show);
  addRows(FIRST);
  chosen(0);
}

function likeliest(logQ) {
  return logQ.indexOf(Math.max(...logQ));
}

/** A drawing of mean ± sd before the prior's; `show` moves it. */
function interval({ mean, deviation }) {
  const width = 120;
  const at = (value) => (width / 2) * (1 + (value - mean) / (4 * deviation));
  const line = svg("line", { y1: 10, y2: 10, class: "posterior" });
  const dot = svg("circle", { cy: 10, r: 2.5, class: "posterior" });
  const drawing = svg("svg", { viewBox: `0 0 ${width} 20`, width, height: 20 },
    svg("rect", {
      x: at(mean - deviation), width: at(mean + deviation) - at(mean - deviation), y: 4, height: 12,
      class: "prior",
    }),
    svg("line", { x1: 0, x2: width, y1: 10, y2: 10, class: "axis" }), line, dot);
  drawing.show = (m, sd) => {
    line.setAttribute("x1", Math.max(at(m - sd), 0));
    line.setAttribute("x2", Math.min(at(m + sd), width));
    dot.setAttribute("cx", Math.min(Math.max(at(m), 3), width - 3));
  };
  return drawing;
}

/** The way from one image's posterior mean to another's. */
function interpolation({ model, page, state, nameOf, image }) {
  const { shape, images } = page;
  const canvas = imageCanvas(shape, "between the two", { class: "large" });
  const other = element("select", { "aria-label": "the other image", change: show });
  for (let i = 0; i < images.count; i++) {
    other.append(element("option", { value: i, selected: i === images.count - 1 }, nameOf(i)));
  }
  const output = element("span");
  const share = element("input", {
    type: "range", min: 0, max: 1, step: 0.01, value: 0.5, input: show, id: "interpolate",
    "aria-label": "from x to the other image",
  });

  function show() {
    const { x, label } = state.values;
    if (!x) return;
    const second = image(Number(other.value));
    let y = model.yDim ? label : null;
    if (model.classifies) y = likeliest(model.classify(second));
    else if (model.yDim && images.labels) y = images.labels[Number(other.value)];
    const t = Number(share.value);
    const [one, two] = [model.encode(x, label).m, model.encode(second, y).m];
    const z = one.map((value, d) => (1 - t) * value + t * two[d]);
    drawImage(canvas, shape, model.mean(model.decode(z, t < 0.5 ? label : y)));
    output.textContent = `${Math.round(100 * t)} %`;
  }

  state.on(["x", "label"], show);
  return element("div", { class: "beside" }, canvas, element("div", { class: "wide" },
    element("h3", {}, "From x to another image"),
    element("p", {},
      model.yDim
        ? "E[x|y, z] at z = (1 − t)·m(x, y) + t·m(x′, y′), y changing half-way; x′ = "
        : "E[x|z] at z = (1 − t)·m(x) + t·m(x′); x′ = ",
      other),
    element("label", { class: "slider" }, "t", share, output)));
}
