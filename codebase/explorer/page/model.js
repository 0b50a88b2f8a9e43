// The model: what codebase/models/ computes, of one image at a time, with the weights in the page.

import {
  gaussian, laplace, logBernoulli, logNormal, logSoftmax, logSumExp, sigmoid, softplus,
} from "./densities.js";

/** A network's output: layers as in torch.nn.Sequential. */
export function forward(layers, input) {
  let values = input;
  for (const layer of layers) {
    if (layer.kind === "linear") values = linear(layer, values);
    else if (layer.kind === "elu") values = values.map((h) => (h > 0 ? h : Math.expm1(h)));
    else values = values.map((h) => (h > 0 ? h : 0)); // relu
  }
  return values;
}

function linear({ weight, bias }, input) {
  const inputs = input.length;
  const output = new Float64Array(bias.length);
  for (let i = 0, at = 0; i < output.length; i++, at += inputs) {
    let sum = 0;
    for (let j = 0; j < inputs; j++) sum += weight[at + j] * input[j];
    output[i] = sum + bias[i];
  }
  return output;
}

export class Model {
  constructor(page) {
    Object.assign(this, {
      zDim: page.z_dim, // dimensions of z
      yDim: page.y_dim, // labels; 0 for none
      xDim: page.shape.reduce((a, b) => a * b),
      likelihood: page.likelihood,
      networks: page.networks,
      prior: page.prior, // m and v: of k components, one after another
      mixture: page.prior.mixture, // whose KL has no closed form
      k: page.prior.m.length / page.z_dim,
      gaussian: page.family === "gaussian", // else p(z) and q(z|x) are Laplace distributions
      family: page.family === "gaussian" ? gaussian : laplace,
    });
    this.classifies = "cls" in page.networks;
  }

  // Networks

  /** Mean and variance (Laplace: scale) of q(z|x), or of q(z|x, y). */
  encode(x, y = null) {
    const h = forward(this.networks.enc, this.joined(x, y));
    return {
      m: Float64Array.from(h.subarray(0, this.zDim)),
      v: Float64Array.from(h.subarray(this.zDim), (value) => softplus(value) + 1e-8),
    };
  }

  /** The decoder's outputs at z: logits, or what the mean is made of. */
  decode(z, y = null) {
    return forward(this.networks.dec, this.joined(z, y));
  }

  /** log q(y|x) of each label. */
  classify(x) {
    return logSoftmax(forward(this.networks.cls, x));
  }

  /** The input with the label behind it, one-hot. */
  joined(values, y) {
    const input = new Float64Array(values.length + this.yDim);
    input.set(values);
    if (this.yDim) input[values.length + y] = 1;
    return input;
  }

  // p(x|z)

  /** E[x|z] from the decoder's outputs. */
  mean(h) {
    const squashed = this.likelihood.binary || this.likelihood.squash;
    return squashed ? h.map(sigmoid) : h;
  }

  logLikelihood(x, h) {
    if (this.likelihood.binary) return logBernoulli(x, h);
    return logNormal(x, this.mean(h), this.likelihood.variance);
  }

  // p(z)

  priorAt(component, d) {
    const i = component * this.zDim + d;
    return [this.prior.m[i], this.prior.v[i]];
  }

  /** Mean and standard deviation of one dimension of z under the prior. */
  priorMoments(d) {
    let mean = 0;
    let square = 0;
    for (let c = 0; c < this.k; c++) {
      const [m, v] = this.priorAt(c, d);
      mean += m / this.k;
      square += (this.family.deviation(v) ** 2 + m * m) / this.k;
    }
    return { mean, deviation: Math.sqrt(Math.max(square - mean * mean, 1e-12)) };
  }

  /** z from a component of the prior. */
  drawPrior(component, random) {
    return Float64Array.from({ length: this.zDim }, (_, d) =>
      this.family.draw(...this.priorAt(component, d), random),
    );
  }

  logPrior(z) {
    const terms = new Float64Array(this.k);
    for (let c = 0; c < this.k; c++) {
      for (let d = 0; d < this.zDim; d++) {
        terms[c] += this.family.logDensity(z[d], ...this.priorAt(c, d));
      }
    }
    return logSumExp(terms) - Math.log(this.k);
  }

  /** log p(z_d): of one dimension. */
  logPriorOf(z, d) {
    const terms = new Float64Array(this.k);
    for (let c = 0; c < this.k; c++) {
      terms[c] = this.family.logDensity(z, ...this.priorAt(c, d));
    }
    return logSumExp(terms) - Math.log(this.k);
  }

  // q(z|x)

  drawPosterior(q, random) {
    return q.m.map((m, d) => this.family.draw(m, q.v[d], random));
  }

  logPosterior(z, q) {
    let sum = 0;
    for (let d = 0; d < this.zDim; d++) sum += this.family.logDensity(z[d], q.m[d], q.v[d]);
    return sum;
  }

  // Bounds

  /** KL(q(z|x) ‖ p(z)), in closed form, of each dimension; null where there is none: a mixture. */
  klOfDimensions(q) {
    if (this.mixture) return null;
    return q.m.map((m, d) => this.family.kl(m, q.v[d], ...this.priorAt(0, d)));
  }

  /** log q(z|x) − log p(z) at a z. */
  klAt(z, q) {
    return this.logPosterior(z, q) - this.logPrior(z);
  }

  /** log w of a draw: log p(x, z) − log q(z|x), and of y too where the model has to infer it. */
  logWeight(x, posterior, random) {
    let { y, q } = posterior;
    let label = 0;
    if (this.classifies) {
      y = drawLabel(posterior.logQY, random);
      q = posterior.byLabel[y];
      label = -Math.log(this.yDim) - posterior.logQY[y];
    }
    const z = this.drawPosterior(q, random);
    return this.logLikelihood(x, this.decode(z, y)) - this.klAt(z, q) + label;
  }

  /** What `logWeight` draws from. */
  posterior(x, y) {
    if (!this.classifies) return { y, q: this.encode(x, y) };
    const byLabel = Array.from({ length: this.yDim }, (_, label) => this.encode(x, label));
    return { logQY: this.classify(x), byLabel };
  }
}

function drawLabel(logQ, random) {
  let left = random();
  for (let y = 0; y < logQ.length; y++) {
    left -= Math.exp(logQ[y]);
    if (left < 0) return y;
  }
  return logQ.length - 1;
}

/** The importance-weighted bound from log weights, in groups of m. */
export function iwae(logWeights, m) {
  const groups = Math.floor(logWeights.length / m);
  const values = [];
  for (let g = 0; g < groups; g++) {
    values.push(Math.log(m) - logSumExp(logWeights.subarray(g * m, (g + 1) * m)));
  }
  const mean = values.reduce((a, b) => a + b, 0) / groups;
  const square = values.reduce((a, b) => a + (b - mean) ** 2, 0);
  return { m, mean, groups, deviation: groups > 1 ? Math.sqrt(square / (groups - 1)) : null };
}

/** (Σ w)² / Σ w²: how many equal weights would tell as much. */
export function effectiveSampleSize(logWeights) {
  return Math.exp(2 * logSumExp(logWeights) - logSumExp(logWeights.map((w) => 2 * w)));
}

/**
 * The largest difference between this page's numbers and PyTorch's, of all checks: relative to the
 * largest of what is compared, and of nats to one nat at least, below which float32 cannot tell.
 */
export function largestDifference(model, checks) {
  let largest = 0;
  const compare = (found, wanted, least = 1e-30) => {
    const scale = Math.max(...Array.from(wanted, Math.abs), least);
    for (let i = 0; i < wanted.length; i++) {
      const difference = Math.abs(found[i] - wanted[i]) / scale;
      largest = difference >= 0 ? Math.max(largest, difference) : Infinity; // also of a nan
    }
  };
  for (const { x, y, m, v, h, kl, rec, logits } of checks) {
    const q = model.encode(x, y);
    const outputs = model.decode(q.m, y);
    compare(q.m, m);
    compare(q.v, v);
    compare(outputs, h);
    const closed = model.klOfDimensions(q);
    compare([closed ? closed.reduce((a, b) => a + b, 0) : model.klAt(q.m, q)], [kl], 1);
    compare([-model.logLikelihood(x, outputs)], [rec], 1);
    if (logits) compare(model.classify(x), logSoftmax(logits));
  }
  return largest;
}
