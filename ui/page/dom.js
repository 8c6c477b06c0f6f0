// Elements, made without ever reading text as markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'dataset') Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(
    ...children.flat().filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

/** An HTML element. */
export function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Sets an attribute only where it changes, so that nothing is laid out for nothing. */
export function set(node, name, value) {
  const text = String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

export const byId = (id) => document.getElementById(id);

/** `17:03:21.482`, in the reader's own zone. */
export function clock(time) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return time;
  const two = (number) => String(number).padStart(2, '0');
  const milli = String(at.getMilliseconds()).padStart(3, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${milli}`;
}

/** `12 s ago`. */
export function ago(time) {
  const seconds = Math.max(0, Math.round((Date.now() - new Date(time).getTime()) / 1000));
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

export const count = (number, one, many = `${one}s`) =>
  `${Number(number).toLocaleString('en')} ${number === 1 ? one : many}`;

/** Asks the server; its refusals become errors with its words. */
export async function ask(path, parameters = {}) {
  const given = Object.entries(parameters).filter(
    ([, value]) => value !== null && value !== undefined,
  );
  const query = new URLSearchParams(given);
  const response = await fetch(given.length ? `${path}?${query}` : path);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? response.statusText);
  return answer;
}

let announced = 0;
let waiting = null;

/** Says something to a screen reader, at most every three seconds; the newest wins. */
export function announce(text) {
  const tell = () => {
    announced = Date.now();
    byId('announcer').textContent = waiting;
    waiting = null;
  };
  const isPlanned = waiting !== null;
  waiting = text;
  if (!isPlanned) setTimeout(tell, Math.max(0, announced + 3000 - Date.now()));
}
