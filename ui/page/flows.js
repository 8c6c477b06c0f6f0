// The live list of flows: the newest on top, in pages of what is kept.

import { announce, byId, clock, count, el } from './dom.js';
import { HISTORY, endName as name, on, select, store } from './store.js';

const ROWS = 200;

let paused = null;
let text = '';
let shownUpTo = 0;
let limit = ROWS;
let denialsTold = 0;
let planned = false;

const port = (flow) =>
  flow.destination.port === null ? flow.protocol : `${flow.destination.port}/${flow.protocol}`;
const policy = (flow) => {
  if (!flow.policy) return '';
  const { namespace, name: own } = flow.policy;
  return namespace ? `${namespace}/${own}` : own;
};

/** What the text is looked for in. */
function haystack(flow) {
  flow.haystack ??= [
    clock(flow.time),
    flow.verdict,
    name(flow.source),
    flow.source.ip,
    name(flow.destination),
    flow.destination.ip,
    port(flow),
    policy(flow),
    flow.reason,
    flow.service?.name ?? '',
    flow.direction ?? '',
    ...Object.entries({ ...flow.source.labels, ...flow.destination.labels }).map((pair) =>
      pair.join('='),
    ),
  ]
    .join(' ')
    .toLowerCase();
  return flow.haystack;
}

const wanted = () => {
  const flows = paused ?? store.flows;
  return text === '' ? flows : flows.filter((flow) => haystack(flow).includes(text));
};

function row(flow) {
  const open = () => select({ kind: 'flow', id: null, flow });
  const node = el(
    'tr',
    { dataset: { verdict: flow.verdict }, tabindex: '-1', title: flow.sentence },
    el('td', { class: 'time' }, clock(flow.time)),
    el(
      'td',
      {},
      el(
        'span',
        { class: 'badge', dataset: { verdict: flow.verdict } },
        flow.verdict.toLowerCase(),
      ),
    ),
    el('td', { class: 'end' }, name(flow.source)),
    el('td', { class: 'end' }, name(flow.destination)),
    el('td', { class: 'port' }, port(flow)),
    el(
      'td',
      { class: 'why' },
      flow.policy && el('span', { class: 'decider' }, `${policy(flow)}: `),
      flow.direction
        ? `${flow.direction.toLowerCase()}, ${flow.reason}`
        : flow.reason.replaceAll('_', ' '),
    ),
  );
  node.flow = flow;
  node.addEventListener('click', () => {
    rove(node);
    open();
  });
  node.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' || event.key === ' ') open();
    else if (event.key === 'ArrowDown') (node.nextElementSibling ?? node).focus();
    else if (event.key === 'ArrowUp') (node.previousElementSibling ?? node).focus();
    else if (event.key === 'Home') rows().firstElementChild.focus();
    else if (event.key === 'End') rows().lastElementChild.focus();
    else return;
    event.preventDefault();
  });
  node.addEventListener('focus', () => rove(node));
  return node;
}

const rows = () => byId('flow-rows');

/** One row at a time is reached by Tab, the others by arrows. */
function rove(node) {
  for (const other of rows().querySelectorAll('[tabindex="0"]'))
    other.setAttribute('tabindex', '-1');
  node.setAttribute('tabindex', '0');
}

function redraw(anew = false) {
  if (anew) shownUpTo = -1;
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    draw();
  });
}

function draw() {
  const flows = wanted();
  const body = rows();
  if (shownUpTo < 0 || flows.length === 0) body.replaceChildren();
  const from = shownUpTo < 0 ? 0 : shownUpTo;
  const fresh = flows
    .filter((flow) => flow.number > from)
    .slice(-limit)
    .reverse()
    .map(row);
  body.prepend(...fresh);
  while (body.children.length > limit) {
    // Whoever reads a row keeps it as long as there is room.
    const last = body.lastElementChild;
    if (last.contains(document.activeElement)) break;
    last.remove();
  }
  shownUpTo = flows.at(-1)?.number ?? 0;
  if (!body.querySelector('[tabindex="0"]')) body.firstElementChild?.setAttribute('tabindex', '0');
  mark();
  byId('flow-empty').hidden = flows.length > 0;
  byId('flow-empty').textContent = store.flows.length > 0 ? 'No flow fits.' : 'No flows yet.';
  note(flows.length);
}

function note(fitting) {
  const shown = Math.min(fitting, rows().children.length);
  const kept = count(store.flows.length, 'flow');
  const parts = [`${shown} of ${kept} kept (at most ${HISTORY.toLocaleString('en')})`];
  if (store.leftOut > 0) parts.push(`${count(store.leftOut, 'flow')} left out`);
  if (paused) {
    const last = paused.at(-1)?.number ?? 0;
    const waiting = store.flows.filter((flow) => flow.number > last).length;
    parts.push(`paused, ${count(waiting, 'flow')} waiting`);
  }
  byId('flow-note').textContent = parts.join(' · ');
  byId('flow-note').classList.toggle('has-losses', store.leftOut > 0);
}

function mark() {
  const chosen = store.selection?.flow?.number;
  for (const node of rows().children)
    node.classList.toggle('is-selected', node.flow.number === chosen);
}

function tellDenials() {
  const dropped = store.flows.filter((flow) => flow.verdict === 'DROPPED');
  const newest = dropped.at(-1)?.number ?? 0;
  if (newest <= denialsTold) return;
  const fresh = dropped.filter((flow) => flow.number > denialsTold).length;
  if (denialsTold > 0) announce(`${count(fresh, 'new denial')}, last: ${dropped.at(-1).sentence}`);
  denialsTold = newest;
}

/** Empties the list for another filter. */
export function clear() {
  paused = paused && [];
  redraw(true);
}

export function start() {
  on('flows', () => {
    if (store.flows.length === 0) shownUpTo = -1;
    tellDenials();
    if (paused) note(wanted().length);
    else redraw();
  });
  on('selection', mark);
  byId('text').addEventListener('input', (event) => {
    text = event.target.value.trim().toLowerCase();
    redraw(true);
  });
  byId('pause').addEventListener('click', () => {
    paused = paused ? null : [...store.flows];
    byId('pause').setAttribute('aria-pressed', String(paused !== null));
    byId('pause').textContent = paused ? 'Go on' : 'Pause';
    announce(paused ? 'The list stands still' : 'The list goes on');
    // At once and in place: whoever is about to click a row clicks that row.
    draw();
  });
  // Reading on at the end shows more of what is kept.
  byId('flow-frame').addEventListener('scroll', ({ target }) => {
    const isAtEnd = target.scrollTop + target.clientHeight > target.scrollHeight - 40;
    if (isAtEnd && rows().children.length >= limit && limit < HISTORY) {
      limit += ROWS;
      const last = rows().lastElementChild.flow.number;
      rows().append(
        ...wanted()
          .filter((flow) => flow.number < last)
          .slice(-ROWS)
          .reverse()
          .map(row),
      );
    } else if (target.scrollTop === 0) limit = ROWS;
  });
}
