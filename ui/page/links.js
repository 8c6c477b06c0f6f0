// The lines of the graph: who is joined with whom, how, and the way a line takes.

import { store } from './store.js';

/** Lines drawn at once; beyond it only those of what is selected. */
const LINES = 1200;

/**
 * What a line says. `closed` and `opened` are what a change of policy makes of a line at once: the
 * last try went the other way.
 */
export const STATES = {
  allow: 'passes',
  deny: 'is denied',
  opened: 'allowed now, not tried since',
  closed: 'denied now, passed before',
  drop: 'is dropped, not by policy',
};

/** The state of an observed edge, by what policy says now and what became of the last try. */
export function stateOf(edge) {
  const hasPassed = edge.verdict === 'FORWARDED';
  if (edge.now === 'deny') return hasPassed ? 'closed' : 'deny';
  if (edge.now === 'allow') {
    if (hasPassed) return 'allow';
    return edge.byPolicy ? 'opened' : 'drop';
  }
  return hasPassed ? 'allow' : 'deny';
}

export const portText = (of) => (of.port === null ? of.protocol : `${of.port}/${of.protocol}`);

/**
 * Lines of the observed edges. `end` gives the pill or box that stands for a name, or null if it is
 * not shown.
 */
function observed(end) {
  const lines = new Map();
  for (const edge of store.edges.values()) {
    const [from, to] = [end(edge.from), end(edge.to)];
    if (from === null || to === null || from === to) continue;
    const state = stateOf(edge);
    const key = `${from}>${to}>${state}`;
    const line = lines.get(key) ?? {
      key,
      from,
      to,
      state,
      count: 0,
      last: '',
      ports: new Set(),
      edges: [],
    };
    line.count += edge.forwarded + edge.dropped;
    if (edge.last > line.last) line.last = edge.last;
    line.ports.add(portText(edge));
    line.edges.push(edge);
    lines.set(key, line);
  }
  return [...lines.values()];
}

/** Lines of the matrix: pairs with a port that may be reached, and pairs without. */
function allowed(end, wantsDenied) {
  const { reach } = store;
  if (reach === null) return [];
  const pairs = new Map();
  for (const column of reach.columns) {
    const to = end(column.to);
    if (to === null) continue;
    reach.from.forEach((name, at) => {
      const from = end(name);
      if (from === null || from === to) return;
      const key = `${from}>${to}`;
      const pair = pairs.get(key) ?? { from, to, may: new Set(), mayNot: new Set() };
      pair[column.marks[at] === '0' ? 'mayNot' : 'may'].add(portText(column));
      pairs.set(key, pair);
    });
  }
  const line = ({ from, to, may, mayNot }) => {
    const isOpen = may.size > 0;
    const state = isOpen ? 'allow' : 'deny';
    return {
      key: `${from}>${to}>${state}`,
      from,
      to,
      state,
      count: 1,
      last: null,
      ports: isOpen ? may : mayNot,
      edges: [],
    };
  };
  const lines = [...pairs.values()].map(line);
  return lines.filter((one) => one.state === 'allow' || wantsDenied(one));
}

/** The lines to draw, and how many there would be besides. */
export function lines({ end, selected, showDenied }) {
  const touches = (line) => selected !== null && (line.from === selected || line.to === selected);
  const wanted =
    store.mode === 'flows' ? observed(end) : allowed(end, (line) => showDenied || touches(line));
  if (wanted.length <= LINES) return { shown: wanted, leftOut: 0 };
  const own = wanted.filter(touches).slice(0, LINES);
  return { shown: own, leftOut: wanted.length - own.length };
}

/** Where the way from the middle of a box to a point leaves the box. */
function border(box, toX, toY, margin) {
  const [dx, dy] = [toX - box.x, toY - box.y];
  const [halfX, halfY] = [box.width / 2 + margin, box.height / 2 + margin];
  const scale = Math.min(
    dx === 0 ? Infinity : halfX / Math.abs(dx),
    dy === 0 ? Infinity : halfY / Math.abs(dy),
  );
  return Number.isFinite(scale) ? [box.x + dx * scale, box.y + dy * scale] : [box.x, box.y];
}

/** Between pills above each other: around the outside, down on the right, up on the left. */
function around(from, to, state) {
  const side = to.y > from.y ? 1 : -1;
  const out = (state === 'allow' ? 30 : 48) + Math.abs(to.y - from.y) * 0.12;
  const edge = from.x + (side * from.width) / 2;
  const [startX, endX] = [edge - side * 6, edge + side * 3];
  const [startY, endY] = [from.y + side * 6, to.y - side * 4];
  const reachX = edge + side * out;
  return {
    path: `M${startX} ${startY}C${reachX} ${startY} ${reachX} ${endY} ${endX} ${endY}`,
    x: edge + side * out * 0.75,
    y: (from.y + to.y) / 2,
  };
}

/**
 * A curve from box to box; both directions are seen, and what is denied is seen beside what passes.
 * On a ring all bend to its middle, past the boxes in between; else each bends to its right. Gives
 * the path and its middle.
 */
export function curve(from, to, state, isRing) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const isAbove = Math.abs(dx) < 2 && from.width === to.width && Math.abs(dy) < 6 * from.height;
  if (isAbove) return around(from, to, state);
  const length = Math.hypot(dx, dy) || 1;
  const base = Math.min(60, 16 + length * 0.08);
  const middleX = (from.x + to.x) / 2;
  const middleY = (from.y + to.y) / 2;
  const isRightInward = middleX * dy - middleY * dx > 0;
  const turn = !isRing || isRightInward ? 1.2 : -0.45;
  const bend = base * turn * (state === 'allow' ? 1 : 1.5);
  const controlX = middleX - (dy / length) * bend * 2;
  const controlY = middleY + (dx / length) * bend * 2;
  const [startX, startY] = border(from, controlX, controlY, 1);
  const [endX, endY] = border(to, controlX, controlY, 5);
  const round = (number) => Math.round(number * 10) / 10;
  const points = [startX, startY, controlX, controlY, endX, endY].map(round);
  const path = `M${points.slice(0, 2).join(' ')}Q${points.slice(2).join(' ')}`;
  return {
    path,
    x: round((startX + 2 * controlX + endX) / 4),
    y: round((startY + 2 * controlY + endY) / 4),
  };
}
