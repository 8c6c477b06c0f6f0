// The bar: the daemon's health, the connection, light and dark.

import { announce, byId, count, el } from './dom.js';
import { on, store } from './store.js';

const THEMES = { auto: 'as the system', light: 'light', dark: 'dark' };

function vital(name, value, { isBad = false, title = '' } = {}, more = null) {
  return el(
    'li',
    { class: isBad ? 'vital is-bad' : 'vital', title, dataset: { vital: name } },
    el('span', { class: 'vital-name' }, name),
    el('span', { class: 'vital-value' }, value),
    more,
  );
}

function health() {
  const { health: known } = store;
  if (!known) return;
  const { workers, conntrack } = known;
  const checked = known.checked ?? 0;
  const mismatches = (known.mismatches ?? 0) + (known.reasonMismatches ?? 0);
  const fill = conntrack.capacity > 0 ? conntrack.entries / conntrack.capacity : 0;
  const percent = fill < 0.001 && fill > 0 ? '<0.1 %' : `${(fill * 100).toFixed(1)} %`;
  const meter = el('meter', {
    min: 0,
    max: 1,
    high: 0.8,
    value: fill.toFixed(4),
    'aria-label': 'connections in use',
  });
  byId('health').replaceChildren(
    vital('generation', String(known.generation), {
      title: 'The policy snapshot that packets are decided by',
    }),
    vital('workers', `${workers.live}/${workers.total}`, {
      isBad: workers.live < workers.total,
      title: 'Workers that decide by it',
    }),
    vital('mismatches', String(mismatches), {
      isBad: mismatches > 0,
      title: `Flows that the self-check decides otherwise, of ${count(checked, 'flow')}`,
    }),
    vital(
      'connections',
      `${conntrack.entries.toLocaleString('en')} · ${percent}`,
      { isBad: fill > 0.8, title: `of ${conntrack.capacity.toLocaleString('en')}` },
      meter,
    ),
  );
  byId('instance').textContent =
    known.instance && known.instance !== known.node
      ? `${known.instance} on ${known.node}`
      : known.node;
  const wrong = [known.health === 'ok' ? null : known.health, ...known.problems].filter(Boolean);
  notice(wrong.join(' · '));
}

let trouble = '';
function notice(text) {
  trouble = text;
  showNotice();
}

function showNotice() {
  const { state, reason } = store.connection;
  const text =
    state === 'daemon-gone'
      ? `The daemon is gone: ${reason}. What is shown is what was known; looking for it …`
      : state === 'server-gone'
        ? `No connection: ${reason}. Trying again …`
        : trouble;
  const node = byId('notice');
  if (node.textContent !== text) node.textContent = text;
  node.hidden = text === '';
  document.body.classList.toggle('is-stale', state !== 'live' && state !== 'connecting');
}

function connection() {
  const { state } = store.connection;
  const words = {
    live: 'live',
    connecting: 'connecting',
    'daemon-gone': 'daemon gone',
    'server-gone': 'no connection',
  };
  byId('connection').textContent = words[state];
  byId('connection').dataset.state = state;
  showNotice();
  if (state === 'live') announce('Connected to the daemon');
}

function theme() {
  const names = Object.keys(THEMES);
  let current = 'auto';
  try {
    current = localStorage.getItem('theme') ?? 'auto';
  } catch {
    // A browser may forbid storage; then the choice lasts as long as the page.
  }
  const show = () => {
    if (current === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = current;
    byId('theme').textContent = { auto: '◐', light: '☀', dark: '☾' }[current];
    byId('theme').setAttribute('aria-label', `Colours: ${THEMES[current]}`);
  };
  if (!names.includes(current)) current = 'auto';
  byId('theme').addEventListener('click', () => {
    current = names[(names.indexOf(current) + 1) % names.length];
    try {
      localStorage.setItem('theme', current);
    } catch {
      // As above.
    }
    show();
  });
  show();
}

export function start() {
  theme();
  on('health', health);
  on('connection', connection);
}
