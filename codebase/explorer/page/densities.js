// Densities, divergences and draws, as in codebase/utils.py, of one image at a time. All in nats.

const LOG_2PI = Math.log(2 * Math.PI);

/** A generator of numbers in [0, 1) that a seed repeats (mulberry32). */
export function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A draw from N(0, 1), by Box and Muller. */
export function standardNormal(random) {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** A draw from Laplace(0, 1). */
export function standardLaplace(random) {
  const u = random() - 0.5;
  return -Math.sign(u) * Math.log(1 - 2 * Math.abs(u));
}

export function softplus(h) {
  return h > 20 ? h : Math.log1p(Math.exp(h));
}

export function sigmoid(h) {
  return 1 / (1 + Math.exp(-h));
}

/** log Σ exp(values); without overflow. */
export function logSumExp(values) {
  let most = -Infinity;
  for (const value of values) most = Math.max(most, value);
  if (most === -Infinity) return most;
  let sum = 0;
  for (const value of values) sum += Math.exp(value - most);
  return most + Math.log(sum);
}

/** log softmax of logits. */
export function logSoftmax(logits) {
  const total = logSumExp(logits);
  return Array.from(logits, (logit) => logit - total);
}

// Families of p(z) and q(z|x), in one dimension: v is the variance of the one, b the scale of the
// other.

export const gaussian = {
  draw: (m, v, random) => m + Math.sqrt(v) * standardNormal(random),
  logDensity: (z, m, v) => -0.5 * (LOG_2PI + Math.log(v) + (z - m) ** 2 / v),
  kl: (m, v, pm, pv) => 0.5 * (Math.log(pv / v) + (v + (m - pm) ** 2) / pv - 1),
  deviation: (v) => Math.sqrt(v),
};

export const laplace = {
  draw: (m, b, random) => m + b * standardLaplace(random),
  logDensity: (z, m, b) => -Math.log(2 * b) - Math.abs(z - m) / b,
  kl: (m, b, pm, pb) => {
    const d = Math.abs(m - pm);
    return Math.log(pb / b) + (d + b * Math.exp(-d / b)) / pb - 1;
  },
  deviation: (b) => Math.SQRT2 * b,
};

// Likelihoods: log p(x|z) of an image from the decoder's outputs h.

export function logBernoulli(x, h) {
  let sum = 0;
  for (let d = 0; d < x.length; d++) sum += x[d] * h[d] - softplus(h[d]);
  return sum;
}

export function logNormal(x, mean, variance) {
  let sum = 0;
  for (let d = 0; d < x.length; d++) sum += (x[d] - mean[d]) ** 2;
  return -0.5 * (x.length * (LOG_2PI + Math.log(variance)) + sum / variance);
}
