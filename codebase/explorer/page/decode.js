// Decode: sliders of z, the image that the decoder makes of it, and the plane where z has two
// dimensions.

import { FIRST, byId, drawImage, element, imageCanvas, shown, soon, zName } from "./dom.js";
import { meanOf } from "./formulas.js";

const RANGE = 4; // standard deviations of the prior
const STEPS = 17; // images of the manifold, on a side

export function decodeView({ model, page, state, names, random, timings }) {
  const { shape, order } = page;
  const section = byId("decode");
  const place = names.place();
  const moments = Array.from({ length: model.zDim }, (_, d) => model.priorMoments(d));
  const image = imageCanvas(shape, "the decoder's image", { class: "large" });
  const sliders = new Map();
  const list = element("div", { class: "sliders" });
  const ticks = element("datalist", { id: "deviations" });
  for (let i = -3; i <= 3; i++) ticks.append(element("option", { value: i }));

  function addSliders(count) {
    for (const d of order.slice(sliders.size, sliders.size + count)) list.append(slider(d));
    more.hidden = sliders.size >= model.zDim;
    show(state.values);
  }

  function slider(d) {
    const { mean, deviation } = moments[d];
    const output = element("span");
    const input = element("input", {
      type: "range", min: -RANGE, max: RANGE, step: 0.01, list: "deviations",
      "aria-label": `${zName(d)}, in standard deviations of the prior`,
      "data-dimension": d,
      input: () => {
        const z = Float64Array.from(state.values.z);
        z[d] = mean + deviation * Number(input.value);
        state.set({ z });
      },
    });
    sliders.set(d, (z) => {
      const units = (z[d] - mean) / deviation;
      input.value = units;
      output.textContent = `${shown(z[d])} = ${shown(units, 1)} sd`;
      input.setAttribute("aria-valuetext", output.textContent);
    });
    return element("div", { class: "slider" }, names.name("z", zName(d), place), input, output);
  }

  const more = element("button", { type: "button", click: () => addSliders(50) }, "more dimensions");
  const drawn = element("output", { "aria-live": "polite" });
  const component = element("input", {
    type: "number", min: 1, max: model.k, placeholder: "any", "aria-label": "component of the prior",
    keydown: (event) => {
      if (event.key === "Enter") fromPrior();
    },
  });
  let fromComponent = null; // the z that was drawn from one

  function fromPrior() {
    if (!component.reportValidity()) return; // the browser says why
    const any = component.value === "";
    const c = any ? Math.floor(random() * model.k) : Number(component.value) - 1;
    fromComponent = model.drawPrior(c, random);
    drawn.textContent = model.mixture ? `component ${c + 1} of ${model.k}` : "";
    state.set({ z: fromComponent });
  }

  const controls = element(
    "div", { class: "controls" },
    element("button", { type: "button", id: "draw-z", click: fromPrior }, "draw z from p(z)"),
    element("button", {
      type: "button",
      click: () => state.set({ z: Float64Array.from(moments, ({ mean }) => mean) }),
    }, "z = the prior's mean"),
  );
  if (model.mixture) controls.append(element("label", {}, "component ", component), drawn);

  const classes = element("div", { class: "classes", role: "group", "aria-label": "class y" });
  const buttons = Array.from({ length: model.yDim }, (_, y) =>
    element("button", { type: "button", "data-class": y, click: () => state.set({ y }) }, `${y}`),
  );
  if (model.yDim) classes.append("y = ", ...buttons);

  function show({ z, y }) {
    if (z === null) return;
    drawImage(image, shape, model.mean(model.decode(z, y)));
    timings.firstImage ??= performance.now();
    if (z !== fromComponent) drawn.textContent = "";
    for (const showSlider of sliders.values()) showSlider(z);
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === y)));
  }

  section.append(
    element("p", {}, "Move z, and see ", names.name("mean", meanOf(model), place), ". The dimensions " +
      "that the encoder uses most come first."),
    place,
    element("div", { class: "beside" },
      image, element("div", { class: "wide" }, classes, list, ticks, more, controls)),
  );
  state.on(["z", "y"], show);
  addSliders(FIRST);
  if (model.zDim === 2) section.append(plane({ model, page, state, moments }));
}

/** The plane of z: posterior means coloured by digit, and the images that the decoder makes. */
function plane({ model, page, state, moments }) {
  const side = 340;
  const extent = moments.map(({ deviation }, d) => {
    const points = page.plane ? page.plane.points : [];
    let most = 3 * deviation;
    for (let i = d; i < points.length; i += 2) {
      most = Math.max(most, Math.abs(points[i] - moments[d].mean));
    }
    return 1.05 * most;
  });
  const toPixels = (value, d) => {
    const share = (value - moments[d].mean) / extent[d];
    return (side / 2) * (1 + (d === 0 ? share : -share));
  };
  const toZ = (pixel, d) => {
    const share = (2 * pixel) / side - 1;
    return moments[d].mean + extent[d] * (d === 0 ? share : -share);
  };

  const inside = (value) => Math.min(Math.max(value, 0), side);
  const setPixels = (left, top) =>
    state.set({ z: Float64Array.of(toZ(inside(left), 0), toZ(inside(top), 1)) });
  const move = (canvas, event) => {
    const box = canvas.getBoundingClientRect();
    setPixels(
      ((event.clientX - box.left) / box.width) * side,
      ((event.clientY - box.top) / box.height) * side,
    );
  };
  const surface = (label) => {
    const canvas = element("canvas", {
      width: side, height: side, class: "plane", tabindex: 0, role: "application",
      "aria-label": `${label}; arrow keys move z`,
      pointerdown: (event) => {
        canvas.setPointerCapture(event.pointerId);
        move(canvas, event);
      },
      pointermove: (event) => {
        if (canvas.hasPointerCapture(event.pointerId)) move(canvas, event);
      },
      keydown: (event) => {
        const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
        if (!steps[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        const [right, down] = steps[event.key];
        const [first, second] = state.values.z;
        setPixels(toPixels(first, 0) + (right * side) / 80, toPixels(second, 1) + (down * side) / 80);
      },
    });
    return canvas;
  };
  const means = surface("plane of z with the posterior means of test images");
  const manifold = surface("plane of z with the decoder's images");
  const [meansBelow, manifoldBelow] = [means, manifold].map(() =>
    element("canvas", { width: side, height: side }),
  );
  drawPoints();
  drawManifold(0);

  function drawPoints() {
    const context = meansBelow.getContext("2d");
    const { points, labels } = page.plane ?? { points: [], labels: [] };
    for (let i = 0; i < labels.length; i++) {
      context.fillStyle = page.palette[labels[i]];
      context.fillRect(toPixels(points[2 * i], 0) - 1.5, toPixels(points[2 * i + 1], 1) - 1.5, 3, 3);
    }
  }

  function drawManifold(row) {
    const [, height, width] = page.shape;
    const small = imageCanvas(page.shape, "");
    const cell = side / STEPS;
    const context = manifoldBelow.getContext("2d");
    for (let column = 0; column < STEPS; column++) {
      const z = [toZ((column + 0.5) * cell, 0), toZ((row + 0.5) * cell, 1)];
      drawImage(small, page.shape, model.mean(model.decode(z, state.values.y)));
      context.drawImage(small, 0, 0, width, height, column * cell, row * cell, cell, cell);
    }
    if (row + 1 < STEPS) soon(() => drawManifold(row + 1));
    else show(state.values);
  }

  function show({ z }) {
    if (z === null) return;
    for (const [canvas, below] of [[means, meansBelow], [manifold, manifoldBelow]]) {
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, side, side);
      context.drawImage(below, 0, 0);
      const [left, top] = [toPixels(z[0], 0), toPixels(z[1], 1)];
      for (const [colour, width] of [["#fff", 5], ["#c00", 2.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.beginPath();
        context.arc(left, top, 7, 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }
  state.on(["z"], show);

  const key = element("p", { class: "key" });
  if (page.plane) {
    page.palette.forEach((colour, digit) => {
      const square = element("span", { class: "square", "aria-hidden": "true" });
      square.style.background = colour;
      key.append(element("span", {}, square, ` ${digit} `));
    });
  }
  return element("div", {},
    element("p", {}, "Click or drag. On the left: the posterior means m(x) of test images, one colour " +
      "per digit. On the right: the decoder's images on the plane."),
    element("div", { class: "planes" }, means, manifold), key);
}
