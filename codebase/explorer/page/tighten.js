// Tighten: the importance-weighted bound of the chosen image, as its draws come in.

import { byId, element, shown, svg } from "./dom.js";
import { effectiveSampleSize, iwae } from "./model.js";

const WEIGHTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
const MOST_DRAWS = 10_000;
const SLICE = 8; // milliseconds of drawing before the page may do something else
const LOOK = 150; // milliseconds between two looks at the curve
const ENOUGH = 1000; // draws while nobody looks: the whole curve
const [HEIGHT, LEFT, RIGHT, BOTTOM] = [260, 52, 14, 38];

export function tightenView({ model, state, names }) {
  const section = byId("tighten");
  const observed = model.yDim && !model.classifies ? "|y" : "";
  const place = names.place();
  const chart = svg("svg", {
    class: "chart", role: "img", height: HEIGHT, "aria-label": "the bound against m, to be drawn",
  });
  const numbers = {
    nelbo: names.number("nelbo", "NELBO", place),
    last: names.number("iwae", "−IWAE-1000", place),
    ess: names.number("ess", "ESS of 1000", place, "", 1),
  };
  const body = element("tbody");
  const drawn = element("span", { class: "small", id: "drawn" });
  const again = element("button", { type: "button", click: () => begin() }, "other draws");
  section.append(
    element("p", {}, "The same image, with m draws of z in place of one: ",
      names.name("iwae", "−IWAE-m", place), ` falls towards −log p(x${observed}). The band is ± one `,
      names.name("spread", "deviation", place), " from one set of draws to another."),
    place,
    element("p", { class: "numbers" }, ...Object.values(numbers)),
    chart,
    element("p", {}, again, " ", drawn),
    element("details", {}, element("summary", {}, "as a table"),
      element("table", {},
        element("thead", {}, element("tr", {},
          ...["m", "−IWAE-m, nats", "sd", "sets"].map((head) =>
            element("th", { scope: "col" }, head)))), body)),
  );

  const logWeights = new Float64Array(MOST_DRAWS);
  let [count, posterior, timer, visible, looked] = [0, null, null, false, 0];

  function begin() {
    if (!state.values.x) return;
    count = 0;
    looked = 0;
    posterior = model.posterior(state.values.x, state.values.label);
    schedule();
  }

  const wanted = () => (visible ? MOST_DRAWS : ENOUGH);

  function schedule() {
    clearTimeout(timer);
    if (posterior && count < wanted()) timer = setTimeout(work, visible ? 0 : 30);
  }

  function work() {
    const begun = performance.now();
    while (count < wanted() && performance.now() - begun < SLICE) {
      logWeights[count] = model.logWeight(state.values.x, posterior, Math.random);
      count += 1;
    }
    if (begun - looked > LOOK || count >= wanted()) {
      looked = begun;
      show();
    }
    schedule();
  }

  function show() {
    const found = logWeights.subarray(0, count);
    const points = WEIGHTS.filter((m) => m <= count).map((m) => iwae(found, m));
    if (!points.length || !state.values.estimate) return;
    const { nelbo } = state.values.estimate; // of the part above
    const last = points.at(-1);
    numbers.nelbo.show(nelbo);
    numbers.last.show(last.m === 1000 ? last.mean : null);
    numbers.ess.show(count >= 1000 ? effectiveSampleSize(found.subarray(0, 1000)) : null);
    drawn.textContent = `${count.toLocaleString("en")} draws`;
    draw(points, nelbo);
    body.replaceChildren(...points.map(({ m, mean, deviation, groups }) => element("tr", {},
      ...[m, shown(mean), shown(deviation), groups].map((text) =>
        element("td", {}, String(text))))));
    chart.setAttribute("aria-label",
      `The bound falls from ${shown(points[0].mean)} nats at m = 1 to ${shown(last.mean)} at m = ${last.m}.`);
  }

  function draw(points, nelbo) {
    const edges = points.flatMap(({ mean, deviation }) => [
      mean - (deviation ?? 0), mean + (deviation ?? 0),
    ]);
    const width = Math.max(chart.clientWidth, 240); // so that its text has the page's size
    chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const [low, high] = [Math.min(...edges, nelbo), Math.max(...edges, nelbo)];
    const pad = 0.08 * (high - low) + 0.01;
    const x = (m) => LEFT + ((width - LEFT - RIGHT) * Math.log10(m)) / 3;
    const y = (value) =>
      10 + ((HEIGHT - BOTTOM - 10) * (high + pad - value)) / (high - low + 2 * pad);
    const spread = points.filter(({ deviation }) => deviation !== null); // of one set, not known
    const upper = spread.map(({ m, mean, deviation }) => [x(m), y(mean + deviation)]);
    const lower = spread.map(({ m, mean, deviation }) => [x(m), y(mean - deviation)]);
    const joined = (pairs) => pairs.map((pair) => pair.map((one) => one.toFixed(1)).join(",")).join(" ");
    const parts = [
      svg("polygon", { points: joined([...upper, ...lower.reverse()]), class: "band" }),
      svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(nelbo), y2: y(nelbo), class: "elbo" }),
      svg("text", { x: width - RIGHT - 2, y: y(nelbo) - 5, "text-anchor": "end" }, "NELBO"),
      svg("polyline", { points: joined(points.map(({ m, mean }) => [x(m), y(mean)])),
        class: "curve" }),
      ...points.map(({ m, mean }) => svg("circle", { cx: x(m), cy: y(mean), r: 3, class: "curve" })),
      svg("text", { x: (width + LEFT) / 2, y: HEIGHT - 4, "text-anchor": "middle" },
        "m, draws of z (logarithmic)"),
    ];
    for (const m of [1, 10, 100, 1000]) {
      const anchor = m === 1000 ? "end" : "middle"; // the last would not fit
      parts.push(svg("text", { x: x(m), y: HEIGHT - 21, "text-anchor": anchor }, String(m)));
    }
    for (let i = 0; i <= 4; i++) {
      const value = low + ((high - low) * i) / 4;
      parts.push(
        svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
        svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, shown(value, 1)),
      );
    }
    chart.replaceChildren(...parts);
  }

  state.on(model.classifies ? ["x"] : ["x", "label"], begin);
  new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    schedule();
  }).observe(section);
  new ResizeObserver(() => show()).observe(chart);
  return {
    get count() {
      return count;
    },
    get logWeights() {
      return logWeights.subarray(0, count);
    },
  };
}
