// The graph: namespaces with their pods, and lines between them.

import { ago, announce, byId, count, el, set, svg } from './dom.js';
import { OUTSIDE, PILL, place } from './layout.js';
import { STATES, curve, lines } from './links.js';
import { endName, on, pods, select, store } from './store.js';

/** With more pods than this namespaces begin folded. */
const FOLD_FROM = 60;
/** Addresses outside that are shown apart. */
const ADDRESSES = 12;
/** How long a line moves after something came along it. */
const FRESH_MS = 3000;

const shape = { groups: [], places: null, scale: 1, x: 0, y: 0, isOwn: false };
const folded = new Map();
let foldAll = null;
const drawn = { boxes: new Map(), heads: new Map(), pills: new Map(), lines: new Map() };
const layers = {};
let picture;
let focused = null;
let planned = false;

const groupOf = (id) => {
  const slash = id.indexOf('/');
  return slash < 0 ? OUTSIDE : id.slice(0, slash);
};
const isFolded = (name) => folded.get(name) ?? foldAll ?? false;

/** Which boxes there are, with what is in them. */
function groups() {
  const byName = new Map();
  const put = (name, pod) => {
    if (!byName.has(name)) byName.set(name, { name, folded: isFolded(name), pods: [] });
    byName.get(name).pods.push(pod);
  };
  const here = pods();
  for (const pod of here)
    put(pod.namespace, {
      id: `${pod.namespace}/${pod.name}`,
      label: pod.name,
      owner: pod.owner,
      pod,
    });
  const outside = new Set();
  for (const edge of store.edges.values())
    for (const id of [edge.from, edge.to]) if (!id.includes('/')) outside.add(id);
  const isShown = (id) => id !== 'node' || byId('show-node').checked;
  const addresses = [...outside].filter(isShown).sort().slice(0, ADDRESSES);
  if (store.mode === 'flows')
    for (const id of addresses)
      put(OUTSIDE, { id, label: id === 'node' ? 'the node' : id, owner: null, pod: null });
  return [...byName.values()];
}

/** The pill or box that stands for a pod or address; null if none does. */
function endOf(id) {
  if (drawn.pills.has(id)) return id;
  const group = groupOf(id);
  const box = shape.places.boxes.get(group);
  return box?.folded ? `[${group}]` : null;
}

const boxOf = (end) =>
  end.startsWith('[') ? shape.places.boxes.get(end.slice(1, -1)) : shape.places.pills.get(end);

/** Draws anew with the next frame, however often it is asked for. */
export function redraw() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    draw();
  });
}

function reconcile(known, wanted, make, update, parent) {
  for (const [key, node] of known) {
    if (wanted.has(key)) continue;
    node.remove();
    known.delete(key);
  }
  for (const [key, value] of wanted) {
    let node = known.get(key);
    if (!node) {
      node = make(key, value);
      known.set(key, node);
      parent.append(node);
    }
    update(node, value, key);
  }
}

function draw() {
  if (foldAll === null && pods().length > 0) {
    foldAll = pods().length > FOLD_FROM;
    set(byId('fold'), 'aria-pressed', foldAll);
  }
  shape.groups = groups();
  const frame = byId('graph').getBoundingClientRect();
  shape.places = place(shape.groups, frame.width / Math.max(1, frame.height));
  drawBoxes();
  drawPills();
  drawLines();
  if (!shape.isOwn) fit();
  byId('graph-empty')?.remove();
  if (shape.groups.length === 0)
    byId('graph').append(el('p', { id: 'graph-empty', class: 'empty' }, 'No pods yet.'));
}

const key = (node, action) =>
  node.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' && event.key !== ' ') return;
    event.preventDefault();
    action();
  });

function stop(node, name, action) {
  node.addEventListener('click', action);
  key(node, action);
  node.addEventListener('focus', () => {
    focused = name;
    for (const other of stops()) other.setAttribute('tabindex', other === node ? '0' : '-1');
  });
}

function drawBoxes() {
  const frame = () => svg('rect', { class: 'box-frame', rx: 14 });
  const place = (node, box) => {
    set(node, 'x', box.x - box.width / 2);
    set(node, 'y', box.y - box.height / 2);
    set(node, 'width', box.width);
    set(node, 'height', box.height);
    node.classList.toggle('is-folded', box.folded);
  };
  reconcile(drawn.boxes, shape.places.boxes, frame, place, layers.boxes);

  const head = (name) => {
    const node = svg(
      'g',
      { class: 'box-head', role: 'button', tabindex: '-1', dataset: { stop: `[${name}]` } },
      svg('rect', { class: 'box-hit', rx: 10 }),
      svg('text', { class: 'box-name' }),
      svg('text', { class: 'box-count' }),
    );
    stop(node, `[${name}]`, () => fold(name));
    return node;
  };
  const write = (node, box, name) => {
    const [hit, title, number] = node.children;
    const [left, top] = [box.x - box.width / 2, box.y - box.height / 2];
    place(hit, {
      ...box,
      y: top + (box.folded ? box.height : 28) / 2,
      height: box.folded ? box.height : 28,
    });
    set(title, 'x', left + 16);
    set(title, 'y', top + (box.folded ? 27 : 21));
    set(number, 'x', box.folded ? left + 16 : left + box.width - 16);
    set(number, 'y', top + (box.folded ? 46 : 21));
    set(number, 'text-anchor', box.folded ? 'start' : 'end');
    title.textContent = name.length > 22 ? `${name.slice(0, 21)}…` : name;
    number.textContent = box.folded ? count(box.pods.length, 'pod') : String(box.pods.length);
    set(node, 'aria-expanded', !box.folded);
    set(
      node,
      'aria-label',
      `namespace ${name}, ${count(box.pods.length, 'pod')}, ${box.folded ? 'folded' : 'unfolded'}`,
    );
  };
  reconcile(drawn.heads, shape.places.boxes, head, write, layers.heads);
}

/** As much of a label as fits a pill, beginning and end. */
function write(text, label) {
  if (text.label === label) return;
  text.label = label;
  text.textContent = label;
  for (
    let kept = label.length - 2;
    text.getComputedTextLength() > PILL.width - 46 && kept > 4;
    kept -= 1
  ) {
    const [head, tail] = [Math.ceil(kept * 0.55), Math.floor(kept * 0.45)];
    text.textContent = `${label.slice(0, head)}…${label.slice(-tail)}`;
  }
}

function drawPills() {
  const wanted = new Map();
  for (const group of shape.groups)
    if (!group.folded) for (const pod of group.pods) wanted.set(pod.id, pod);
  const make = (id, { pod }) => {
    const node = svg(
      'g',
      { class: 'pill', role: 'button', tabindex: '-1', dataset: { stop: id } },
      svg('title'),
      svg('rect', { width: PILL.width, height: PILL.height, rx: PILL.height / 2 }),
      svg('circle', { class: 'pill-dot', cx: 18, cy: 17, r: 4.5 }),
      svg('text', { x: 31, y: 21.5 }),
    );
    stop(node, id, () => select(pod ? { kind: 'pod', id } : { kind: 'address', id }));
    return node;
  };
  const update = (node, { id, label, pod }) => {
    const at = shape.places.pills.get(id);
    set(node, 'transform', `translate(${at.x - at.width / 2} ${at.y - at.height / 2})`);
    const [title, , , text] = node.children;
    write(text, label);
    title.textContent = id;
    const state = pod === null ? 'outside' : pod.ready ? 'ready' : 'waiting';
    node.dataset.state = state;
    const chosen = store.selection?.id === id;
    node.classList.toggle('is-selected', chosen);
    set(node, 'aria-pressed', chosen);
    set(node, 'aria-label', pod ? `pod ${id}, ${state}` : `address ${label}`);
  };
  reconcile(drawn.pills, wanted, make, update, layers.pills);
  const every = stops();
  if (!every.some((node) => node.getAttribute('tabindex') === '0'))
    every[0]?.setAttribute('tabindex', '0');
}

/** Whether a line has to do with what is selected; with nothing selected each has. */
function meant() {
  const { selection } = store;
  const pair = {
    flow: ({ flow }) => [endOf(endName(flow.source)), endOf(endName(flow.destination))],
    edge: ({ edge }) => [endOf(edge.from), endOf(edge.to)],
    line: ({ from, to }) => [from, to],
  }[selection?.kind];
  if (pair) {
    const [from, to] = pair(selection);
    // What is not drawn, as multicast, lets the others be.
    if (from === null || to === null) return () => true;
    return (line) => line.from === from && line.to === to;
  }
  const chosen = selection && endOf(selection.id);
  return (line) => !chosen || line.from === chosen || line.to === chosen;
}

function drawLines() {
  const selected = store.selection?.id ?? null;
  const chosen = selected && endOf(selected);
  const isMeant = meant();
  const { shown, leftOut } = lines({
    end: endOf,
    selected: chosen,
    showDenied: byId('show-denied').checked,
  });
  const wanted = new Map(shown.map((line) => [line.key, line]));
  const make = () => {
    const node = svg(
      'g',
      { class: 'line' },
      svg('title'),
      svg('path', { class: 'line-hit' }),
      svg('path', { class: 'line-path' }),
      svg('path', { class: 'line-run' }),
      svg(
        'g',
        { class: 'line-mark' },
        svg('circle', { r: 8 }),
        svg('path', { d: 'M-3-3L3 3M3-3L-3 3' }),
      ),
    );
    node.addEventListener('click', () => {
      const { from, to, edges } = node.line;
      if (edges.length === 1) select({ kind: 'edge', id: null, edge: edges[0] });
      else select({ kind: 'line', id: null, from, to });
    });
    return node;
  };
  picture.classList.toggle('is-dense', shown.length > 120);
  const now = Date.now();
  const update = (node, line) => {
    const way = curve(boxOf(line.from), boxOf(line.to), line.state, shape.places.isRing);
    const [title, hit, path, run, mark] = node.children;
    set(hit, 'd', way.path);
    set(path, 'd', way.path);
    set(run, 'd', way.path);
    set(mark, 'transform', `translate(${way.x} ${way.y})`);
    set(path, 'marker-end', `url(#head-${line.state})`);
    node.dataset.state = line.state;
    node.dataset.key = line.key;
    const age = line.last ? now - new Date(line.last).getTime() : 0;
    const level = line.last === null || age < 15_000 ? 0 : age < 60_000 ? 1 : age < 300_000 ? 2 : 3;
    node.dataset.age = level;
    node.classList.toggle('is-fresh', line.last !== null && age < FRESH_MS);
    node.line = line;
    node.classList.toggle('is-faint', !isMeant(line));
    set(path, 'stroke-width', Math.min(4, 1.6 + Math.log10(1 + line.count) * 0.7).toFixed(1));
    const ports = [...line.ports].sort().join(', ');
    const seen = line.last ? `, ${count(line.count, 'flow')}, ${ago(line.last)}` : '';
    title.textContent = `${line.from} → ${line.to} ${ports}: ${STATES[line.state]}${seen}`;
  };
  reconcile(drawn.lines, wanted, make, update, layers.lines);
  const note =
    leftOut > 0 ? `${count(leftOut, 'line')} left out: select a pod, or fold namespaces` : '';
  byId('graph-note').textContent = note;
}

function stops() {
  return [...layers.heads.children, ...layers.pills.children];
}

function fold(name) {
  folded.set(name, !isFolded(name));
  shape.isOwn = false;
  draw();
  announce(`${name} ${isFolded(name) ? 'folded' : 'unfolded'}`);
  focusOn(`[${name}]`);
}

function focusOn(name) {
  stops()
    .find((node) => node.dataset.stop === name)
    ?.focus();
}

/** The nearest stop in a direction, by the angle to it and the way there. */
function walk(dx, dy) {
  const middle = (node) => {
    const box = node.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const here = stops().find((node) => node.dataset.stop === focused);
  if (!here) return;
  const [x, y] = middle(here);
  let best = null;
  for (const node of stops()) {
    if (node === here) continue;
    const [toX, toY] = middle(node);
    const along = (toX - x) * dx + (toY - y) * dy;
    const aside = Math.abs((toX - x) * dy) + Math.abs((toY - y) * dx);
    if (along <= 1) continue;
    const cost = along + aside * 2.5;
    if (best === null || cost < best.cost) best = { node, cost };
  }
  best?.node.focus();
}

function view() {
  const { frame } = shape.places;
  const pad = 28;
  const [width, height] = [frame.right - frame.left + 2 * pad, frame.bottom - frame.top + 2 * pad];
  const [middleX, middleY] = [
    (frame.left + frame.right) / 2 + shape.x,
    (frame.top + frame.bottom) / 2 + shape.y,
  ];
  const [w, h] = [width / shape.scale, height / shape.scale];
  const corner = [middleX - w / 2, middleY - h / 2, w, h];
  set(picture, 'viewBox', corner.map((number) => number.toFixed(1)).join(' '));
}

function fit() {
  Object.assign(shape, { scale: 1, x: 0, y: 0, isOwn: false });
  view();
}

function zoom(factor) {
  shape.scale = Math.min(12, Math.max(0.4, shape.scale * factor));
  shape.isOwn = true;
  view();
}

function listen() {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  picture.addEventListener('keydown', (event) => {
    if (arrows[event.key]) walk(...arrows[event.key]);
    else if (event.key === '+' || event.key === '=') zoom(1.25);
    else if (event.key === '-') zoom(0.8);
    else if (event.key === '0') fit();
    else if (event.key === 'Escape') select(null);
    else return;
    event.preventDefault();
  });
  picture.addEventListener(
    'wheel',
    (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.12 : 0.89);
    },
    { passive: false },
  );
  let drag = null;
  picture.addEventListener('pointerdown', (event) => {
    if (event.target.closest('[role=button], .line')) return;
    drag = { x: event.clientX, y: event.clientY };
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener('pointermove', (event) => {
    if (drag === null) return;
    const unit = 1 / (picture.getScreenCTM()?.a || 1);
    shape.x -= (event.clientX - drag.x) * unit;
    shape.y -= (event.clientY - drag.y) * unit;
    drag = { x: event.clientX, y: event.clientY };
    shape.isOwn = true;
    view();
  });
  picture.addEventListener('pointerup', () => {
    drag = null;
  });
  byId('zoom-in').addEventListener('click', () => zoom(1.25));
  byId('zoom-out').addEventListener('click', () => zoom(0.8));
  byId('zoom-fit').addEventListener('click', fit);
  byId('fold').addEventListener('click', () => {
    foldAll = !foldAll;
    folded.clear();
    shape.isOwn = false;
    set(byId('fold'), 'aria-pressed', foldAll);
    draw();
  });
  for (const id of ['show-node', 'show-denied']) byId(id).addEventListener('change', redraw);
}

function legend() {
  const states = store.mode === 'flows' ? ['allow', 'deny', 'opened', 'closed'] : ['allow', 'deny'];
  const item = (state) =>
    el(
      'li',
      { dataset: { state } },
      svg(
        'svg',
        { viewBox: '0 0 34 12', width: 34, height: 12, 'aria-hidden': 'true' },
        svg(
          'g',
          { class: 'line', dataset: { state } },
          svg('path', { class: 'line-path', d: 'M1 6H33', 'stroke-width': 2.4 }),
        ),
      ),
      store.mode === 'flows'
        ? STATES[state]
        : state === 'allow'
          ? 'may reach, on some port'
          : 'may not reach',
    );
  byId('legend').replaceChildren(...states.map(item));
}

export function start() {
  const head = (state) =>
    svg(
      'marker',
      {
        id: `head-${state}`,
        class: 'head',
        viewBox: '0 0 10 10',
        refX: 8,
        refY: 5,
        markerWidth: 9,
        markerHeight: 9,
        markerUnits: 'userSpaceOnUse',
        orient: 'auto-start-reverse',
        dataset: { state },
      },
      svg('path', { d: 'M0 0L10 5L0 10Z' }),
    );
  for (const name of ['boxes', 'lines', 'heads', 'pills']) layers[name] = svg('g', { class: name });
  picture = svg(
    'svg',
    {
      class: 'picture',
      role: 'group',
      'aria-label':
        'Namespaces and pods. Arrow keys move, Enter selects a pod or folds a namespace, ' +
        'plus and minus change the size.',
    },
    svg('defs', {}, ...Object.keys(STATES).map(head)),
    layers.boxes,
    layers.lines,
    layers.heads,
    layers.pills,
  );
  byId('graph').append(picture);
  listen();
  on('objects edges selection reach', redraw);
  on('mode', () => {
    byId('denied-label').hidden = store.mode !== 'policy';
    byId('node-label').hidden = store.mode !== 'flows';
    byId('graph-title').textContent =
      store.mode === 'flows' ? 'Who talks to whom' : 'Who may reach whom';
    legend();
    redraw();
  });
  legend();
  // Lines grow old without anything happening.
  setInterval(redraw, 2000);
  new ResizeObserver(redraw).observe(byId('graph'));
}
