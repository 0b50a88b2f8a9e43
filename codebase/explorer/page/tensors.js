// The page's data: a description in JSON, and the tensors that it refers to, in one block of bytes.

/** The description in the page, its references to tensors replaced by arrays of numbers. */
export function readPage() {
  const page = JSON.parse(document.getElementById("page").textContent);
  const text = atob(document.getElementById("tensors").textContent.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return withTensors(page, bytes.buffer);
}

function withTensors(value, buffer) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map((one) => withTensors(one, buffer));
  if ("tensor" in value) return tensor(buffer, ...value.tensor);
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, withTensors(one, buffer)]),
  );
}

function tensor(buffer, kind, offset, length) {
  if (kind === "uint8") return new Uint8Array(buffer, offset, length);
  if (kind === "float32") return new Float32Array(buffer, offset, length);
  return Float32Array.from(new Uint16Array(buffer, offset, length), half);
}

/** A number of half precision from its sixteen bits. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
