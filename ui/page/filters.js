// The filters of the list: those of `weir observe`, which the server names and applies.

import { ask, byId, el } from './dom.js';
import { filterBy } from './connection.js';
import { clear } from './flows.js';
import { all, fullName, on, pods, policies, store } from './store.js';

let known = [];
/** `{name, value, isSwitch, not}` in their order. */
const chosen = [];

const quoted = (text) =>
  /^[\w./:=,@%-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;

function words({ name, value, isSwitch, not }) {
  const flag = isSwitch ? `--${name}` : `--${name} ${quoted(value)}`;
  return not ? `--not ${flag}` : flag;
}

const verdict = () => document.querySelector('input[name=verdict]:checked').value;

function filters() {
  const own = verdict();
  return own ? [{ name: 'verdict', value: own, isSwitch: false, not: false }, ...chosen] : chosen;
}

async function apply() {
  const pairs = filters().flatMap(({ name, value, not }) =>
    not
      ? [
          ['not', ''],
          [name, value],
        ]
      : [[name, value]],
  );
  show();
  try {
    await filterBy(pairs);
    byId('filter-error').hidden = true;
    clear();
    return true;
  } catch (error) {
    byId('filter-error').textContent = error.message;
    byId('filter-error').hidden = false;
    return false;
  }
}

function show() {
  const chips = chosen.map((filter, at) =>
    el(
      'li',
      { class: 'chip' },
      el('span', {}, words(filter).replaceAll('--', '')),
      el(
        'button',
        {
          type: 'button',
          'aria-label': `Remove ${words(filter)}`,
          onclick: () => {
            chosen.splice(at, 1);
            apply();
            byId('filter-value').focus();
          },
        },
        '×',
      ),
    ),
  );
  byId('chips').replaceChildren(...chips);
  byId('command').textContent = ['weir observe -f', ...filters().map(words)].join(' ');
}

const flag = () => known.find((filter) => filter.name === byId('filter-name').value);

/** Values that are there, for the filter that is being written. */
function suggest() {
  const name = byId('filter-name').value;
  const labels = () =>
    pods().flatMap((pod) => Object.entries(pod.labels ?? {}).map((pair) => pair.join('=')));
  const values = {
    pod: () => pods().map(fullName),
    namespace: () => all('Namespace').map((one) => one.name),
    label: labels,
    ip: () => pods().flatMap((pod) => pod.ips),
    service: () => all('Service').map(fullName),
    workload: () =>
      store.flows
        .flatMap((flow) => [flow.source.workload, flow.destination.workload])
        .filter(Boolean),
    port: () => pods().flatMap((pod) => pod.ports.map(({ port }) => String(port))),
    policy: () => policies().map(fullName),
    protocol: () => ['tcp', 'udp', 'sctp', 'icmp'],
    'traffic-direction': () => ['ingress', 'egress'],
    type: () => ['drop', 'policy-verdict'],
    'drop-reason-desc': () => ['POLICY_DENIED'],
    'ip-version': () => ['v4', 'v6'],
    'tcp-flags': () => ['syn', 'syn,ack', 'rst'],
  };
  const plain = name.replace(/^(from|to)-/, '');
  const found = [...new Set((values[plain] ?? (() => []))())].sort().slice(0, 300);
  byId('filter-values').replaceChildren(...found.map((value) => el('option', { value })));
  byId('filter-value').disabled = flag()?.isSwitch ?? false;
  byId('filter-value').placeholder = flag()?.isSwitch ? '' : 'value';
}

async function add(event) {
  event.preventDefault();
  const { name, isSwitch } = flag();
  const value = byId('filter-value').value.trim();
  if (!isSwitch && value === '') {
    byId('filter-value').focus();
    return;
  }
  chosen.push({ name, value, isSwitch, not: byId('filter-not').checked });
  if (await apply()) {
    byId('filter-value').value = '';
    byId('filter-not').checked = false;
  } else {
    chosen.pop();
    show();
  }
}

export async function start() {
  byId('filter').addEventListener('submit', add);
  byId('filter-name').addEventListener('change', suggest);
  byId('filter-value').addEventListener('focus', suggest);
  for (const radio of document.querySelectorAll('input[name=verdict]'))
    radio.addEventListener('change', apply);
  on('objects', suggest);
  known = (await ask('/api/filters')).filter(({ name }) => name !== 'not' && name !== 'verdict');
  byId('filter-name').replaceChildren(
    ...known.map(({ name, help }) => el('option', { value: name, title: help }, name)),
  );
  byId('filter-name').value = 'pod';
  suggest();
  show();
}
