// A field to draw a digit on, with mouse, finger or keys, and the image that the model gets of it.

import { element } from "./dom.js";

const SIDE = 280; // pixels of the field
const PEN = 2.3; // pixels of the image

/**
 * The field and its controls.
 *
 * Calls `changed` with grey levels in [0, 1], of width × height pixels, at each move of the pen, and
 * `cleared` when the drawing is. `isShown` tells whether the drawing is the image that is encoded.
 */
export function drawingPad([channels, height, width], { changed, cleared, isShown }) {
  let strokes = []; // of points, in shares of the field
  let pen = { x: 0.5, y: 0.5, down: false };
  let focused = false;
  const field = element("canvas", {
    width: SIDE, height: SIDE, class: "pad", tabindex: 0, role: "application", id: "pad",
    "aria-label":
      "field to draw a digit on; arrow keys move the pen, space puts it down or lifts it, " +
      "delete clears",
    pointerdown: (event) => {
      if (event.button !== 0 || !event.isPrimary) return; // one finger, or the main button
      field.setPointerCapture(event.pointerId);
      pen = { ...at(event), down: false };
      strokes.push([at(event)]);
      update();
    },
    pointermove: (event) => {
      if (!event.isPrimary || !field.hasPointerCapture(event.pointerId)) return;
      strokes.at(-1).push(at(event));
      update();
    },
    focus: () => {
      focused = true;
      show();
    },
    blur: () => {
      focused = false;
      show();
    },
    keydown: (event) => key(event),
  });
  const centre = element("input", { type: "checkbox", checked: true, change: () => isShown() && update() });
  const clear = () => {
    strokes = [];
    pen.down = false;
    show();
    if (isShown()) cleared();
  };
  const controls = element("div", { class: "controls" },
    element("button", { type: "button", click: clear }, "clear"),
    element("label", {}, centre, " centre and scale as in MNIST"));
  if (channels > 1) centre.checked = false;

  function at(event) {
    const box = field.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  function key(event) {
    const step = 1 / width;
    const moves = {
      ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step],
    };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) strokes.push([{ x: pen.x, y: pen.y }]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      clear();
    } else if (moves[event.key]) {
      const inside = (value) => Math.min(Math.max(value, 0), 1);
      pen.x = inside(pen.x + moves[event.key][0]);
      pen.y = inside(pen.y + moves[event.key][1]);
      if (pen.down) strokes.at(-1).push({ x: pen.x, y: pen.y });
    } else {
      return;
    }
    event.preventDefault();
    update();
  }

  function update() {
    show();
    if (strokes.length) changed(rasterised());
  }

  function show() {
    const context = field.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, SIDE, SIDE);
    trace(context, SIDE, SIDE, (PEN * SIDE) / width, 0, 0);
    if (focused) {
      context.strokeStyle = pen.down ? "#f55" : "#5af";
      context.lineWidth = 2;
      context.strokeRect(pen.x * SIDE - 6, pen.y * SIDE - 6, 12, 12);
    }
  }

  function trace(context, scaleX, scaleY, pixels, left, top) {
    context.strokeStyle = "#fff";
    context.lineWidth = pixels;
    context.lineCap = context.lineJoin = "round";
    for (const points of strokes) {
      context.beginPath();
      context.moveTo(points[0].x * scaleX + left, points[0].y * scaleY + top);
      const [first] = points;
      for (const { x, y } of points.length > 1 ? points : [first, { ...first, x: first.x + 1e-4 }]) {
        context.lineTo(x * scaleX + left, y * scaleY + top);
      }
      context.stroke();
    }
  }

  function rasterised() {
    if (!centre.checked) return pixels(width, height, 0, 0);
    // MNIST's digits are 20 pixels tall or wide, and their centre of mass is the image's.
    const points = strokes.flat();
    const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
    const [left, top] = [Math.min(...xs), Math.min(...ys)];
    const size = Math.max(Math.max(...xs) - left, Math.max(...ys) - top, 0.05);
    const scale = (20 - PEN) / size;
    const corner = (low, least, most) => (low - (most - least) * scale) / 2 - least * scale;
    let shift = [corner(width, left, Math.max(...xs)), corner(height, top, Math.max(...ys))];
    const grey = pixels(scale, scale, ...shift);
    let [mass, x, y] = [1e-9, 0, 0];
    grey.forEach((value, i) => {
      mass += value;
      x += value * ((i % width) + 0.5);
      y += value * (Math.floor(i / width) + 0.5);
    });
    shift = [shift[0] + width / 2 - x / mass, shift[1] + height / 2 - y / mass];
    return pixels(scale, scale, ...shift);
  }

  const small = element("canvas", { width, height });

  function pixels(scaleX, scaleY, left, top) {
    const context = small.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    trace(context, scaleX, scaleY, PEN, left, top);
    const { data } = context.getImageData(0, 0, width, height);
    const size = width * height;
    return Float64Array.from({ length: channels * size }, (_, i) => data[4 * (i % size)] / 255);
  }

  show();
  return element("div", {}, field, controls);
}
