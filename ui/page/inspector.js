// What is selected: a pod, a line, a flow; else all policies.

import { ago, ask, byId, clock, count, el } from './dom.js';
import { STATES, portText, stateOf } from './links.js';
import { answerOf, put } from './question.js';
import { wantReach } from './reach.js';
import { endName, fullName, on, pods, policies, policyCalled, select, store } from './store.js';

/** With more pods than this those of a namespace are folded. */
const LISTED = 30;

let turn = 0;
/** What had the focus when something was selected. */
let origin = null;

const title = (text) => {
  byId('inspector-title').textContent = text;
};
const section = (heading, ...children) =>
  el('section', { class: 'part' }, el('h3', {}, heading), ...children);
const muted = (text) => el('p', { class: 'muted' }, text);

/** A policy that unfolds to its YAML and its rules' hits. */
export function policyCard(policy, { label, hits, isOpen = false } = {}) {
  const body = el('div', { class: 'policy-body' });
  const load = async () => {
    try {
      const { kind, namespace, name } = policy;
      const answer = await ask('/api/policy', { kind, namespace, name });
      body.replaceChildren(ruleHits(answer.hits), yaml(answer.yaml));
    } catch (error) {
      body.replaceChildren(el('p', { class: 'error' }, error.message));
    }
  };
  const summary = label ?? [
    el('span', { class: 'policy-name' }, fullName(policy)),
    el('span', { class: 'muted' }, ` ${policy.kind}`),
    policy.audit && el('span', { class: 'badge', dataset: { verdict: 'AUDIT' } }, 'audit'),
    hits && el('span', { class: 'hits' }, total(hits)),
  ];
  const card = el(
    'details',
    { class: 'policy', dataset: { policy: fullName(policy) } },
    el('summary', {}, summary),
    body,
  );
  card.addEventListener('toggle', () => {
    if (card.open) load();
  });
  card.open = isOpen;
  return card;
}

function total(hits) {
  const connections = hits.rules.reduce((sum, rule) => sum + rule.connections, 0);
  return connections === 0 ? 'never matched' : count(connections, 'connection');
}

function ruleHits(hits) {
  if (!hits) return muted('no hits known');
  const rows = hits.rules.map((rule) =>
    el(
      'tr',
      {},
      el(
        'th',
        { scope: 'row' },
        `${rule.direction.toLowerCase()} ${rule.rule === null ? 'default' : `rule ${rule.rule}`}`,
      ),
      el('td', {}, rule.isCounted ? rule.connections.toLocaleString('en') : 'not counted'),
      el('td', {}, rule.isCounted ? rule.packets.toLocaleString('en') : ''),
      el('td', {}, rule.lastHit ? ago(rule.lastHit) : rule.isCounted ? 'never' : ''),
    ),
  );
  const heads = ['Rule', 'Connections', 'Packets', 'Last'].map((head) =>
    el('th', { scope: 'col' }, head),
  );
  return el(
    'table',
    { class: 'hits-table' },
    el('caption', { class: 'unseen' }, 'What each rule has decided'),
    el('thead', {}, el('tr', {}, heads)),
    el('tbody', {}, rows),
  );
}

/** YAML with its keys apart from its values. */
function yaml(text) {
  const line = (one) => {
    const found = /^(\s*(?:- )*)([\w./-]+:)(.*)$/.exec(one);
    return found
      ? [
          found[1],
          el('span', { class: 'yaml-key' }, found[2]),
          el('span', { class: 'yaml-value' }, found[3]),
          '\n',
        ]
      : [el('span', { class: 'yaml-value' }, one), '\n'];
  };
  return el(
    'pre',
    { class: 'yaml', tabindex: '0', 'aria-label': 'The policy as YAML' },
    text.trimEnd().split('\n').flatMap(line),
  );
}

function overview() {
  title('Policies');
  const sorted = policies().sort((a, b) => fullName(a).localeCompare(fullName(b)));
  if (sorted.length === 0) return [muted('No policies: every pod reaches every other.')];
  return [
    el(
      'div',
      { class: 'cards' },
      sorted.map((policy) => policyCard(policy)),
    ),
  ];
}

const podLink = (id) =>
  el('button', { type: 'button', class: 'link', onclick: () => select({ kind: 'pod', id }) }, id);

async function podView(id) {
  title(id);
  const pod = pods().find((one) => fullName(one) === id);
  if (!pod) return [muted('This pod is gone.')];
  const { namespace, name } = pod;
  const known = await ask('/api/pod', { namespace, name });
  const labels = Object.entries(pod.labels ?? {});
  const ports = pod.ports.map((port) =>
    el('li', { class: 'chip' }, `${portText(port)}${port.name ? ` ${port.name}` : ''}`),
  );
  const facts = el(
    'dl',
    { class: 'facts' },
    el('dt', {}, 'State'),
    el('dd', {}, `${pod.phase || 'Pending'}, ${pod.ready ? 'ready' : 'not ready'}`),
    el('dt', {}, 'Addresses'),
    el('dd', {}, pod.ips.join(', ') || '—'),
    el('dt', {}, 'Labels'),
    el(
      'dd',
      {},
      labels.length
        ? el(
            'ul',
            { class: 'chips' },
            labels.map((pair) => el('li', { class: 'chip' }, pair.join('='))),
          )
        : '—',
    ),
    el('dt', {}, 'Ports'),
    el('dd', {}, ports.length ? el('ul', { class: 'chips' }, ports) : 'none declared'),
    pod.owner && [el('dt', {}, 'Owner'), el('dd', {}, pod.owner)],
  );
  const hitsOf = (policy) =>
    known.hits.find(
      (hits) =>
        hits.kind === policy.kind &&
        hits.name === policy.name &&
        (hits.namespace ?? null) === (policy.namespace ?? null),
    );
  const selecting = known.policies.map((policy) =>
    policyCard({ ...policy, namespace: policy.namespace ?? '' }, { hits: hitsOf(policy) }),
  );
  return [
    facts,
    section(
      'Policies that select it',
      selecting.length
        ? el('div', { class: 'cards' }, selecting)
        : muted('None: it is not isolated.'),
    ),
    section('May reach it', reachList(id, 'to')),
    section('It may reach', reachList(id, 'from')),
    section(
      'Seen',
      edgeList((edge) => edge.from === id || edge.to === id),
    ),
  ];
}

/** Who may reach a pod, or whom it may reach, from the matrix. */
function reachList(id, way) {
  const { reach } = store;
  if (reach === null) {
    wantReach();
    return muted('asking …');
  }
  if (reach.error) return muted(reach.error);
  const found = new Map();
  let asked = 0;
  const note = (other, column, mark) => {
    if (other === id) return;
    asked += 1;
    if (mark === '0') return;
    if (!found.has(other)) found.set(other, []);
    found.get(other).push(portText(column) + (mark === '1' ? '' : ` IPv${mark} only`));
  };
  const self = reach.from.indexOf(id);
  for (const column of reach.columns) {
    if (way === 'to' && column.to === id)
      reach.from.forEach((from, at) => note(from, column, column.marks[at]));
    if (way === 'from' && self >= 0) note(column.to, column, column.marks[self]);
  }
  if (asked === 0)
    return muted(way === 'to' ? 'It declares no port.' : 'Nobody else declares a port.');
  if (found.size === 0) return muted(way === 'to' ? 'Nobody.' : 'Nothing that is declared.');
  const item = ([other, ports]) =>
    el(
      'li',
      {},
      podLink(other),
      ' ',
      ports.map((port) => el('span', { class: 'chip allow' }, port)),
    );
  const items = [...found].sort(([a], [b]) => a.localeCompare(b));
  if (items.length <= LISTED) return el('ul', { class: 'reach' }, items.map(item));
  const groups = Map.groupBy(items, ([other]) => other.split('/')[0]);
  return el(
    'ul',
    { class: 'reach' },
    [...groups].map(([namespace, members]) =>
      el(
        'li',
        {},
        el(
          'details',
          { dataset: { policy: `${way} ${namespace}` } },
          el('summary', {}, `${namespace}: ${count(members.length, 'pod')}`),
          el('ul', { class: 'reach' }, members.map(item)),
        ),
      ),
    ),
  );
}

const tally = ({ forwarded, dropped }) =>
  `${forwarded.toLocaleString('en')} passed, ${dropped.toLocaleString('en')} dropped`;

function edgeList(takes) {
  const edges = [...store.edges.values()]
    .filter(takes)
    .sort((a, b) => b.last.localeCompare(a.last));
  if (edges.length === 0) return muted('Nothing yet.');
  return el(
    'ul',
    { class: 'edges' },
    edges.slice(0, 60).map((edge) => {
      const state = stateOf(edge);
      const open = () => select({ kind: 'edge', id: null, edge });
      return el(
        'li',
        { dataset: { state } },
        el(
          'button',
          { type: 'button', class: 'edge', onclick: open },
          el('span', { class: 'edge-ends' }, `${edge.from} → ${edge.to}`),
          el('span', { class: 'edge-port' }, portText(edge)),
          el(
            'span',
            { class: 'edge-state' },
            `${STATES[state]} · ${tally(edge)} · ${ago(edge.last)}`,
          ),
        ),
      );
    }),
  );
}

/** Asks `trace` now, and says if it has become otherwise since. */
async function present(from, to, port, protocol, was) {
  const question = {
    from,
    to,
    port: port ?? '',
    protocol: protocol === 'ICMPV6' ? 'ICMP' : protocol,
  };
  let answer;
  try {
    answer = await ask('/api/trace', question);
  } catch (error) {
    return [el('p', { class: 'note' }, `It cannot be asked again: ${error.message}.`)];
  }
  const changed = was !== null && answer.json.verdict !== was;
  return [
    section(changed ? 'Since then policy has changed' : 'What policy says now', answerOf(answer)),
    el(
      'button',
      { type: 'button', onclick: () => put(question).then(() => byId('ask').focus()) },
      'Ask more about it',
    ),
  ];
}

const pointer = (end) => (end.pod ? `pod/${end.namespace}/${end.pod}` : end.ip);

/** When, from where to where, with which flags, on which node. */
function packetOf({ time, source, destination, tcpFlags, node }) {
  const from = source.port === null ? source.ip : `${source.ip} port ${source.port}`;
  const flags = tcpFlags.length > 0 ? [tcpFlags.join(' ')] : [];
  return [clock(time), `${from} to ${destination.ip}`, ...flags, `node ${node}`].join(' · ');
}

/** The sentence of a flow, and the policy that decided beside it. */
function told(flow) {
  const { policy } = flow;
  const named = policy && policyCalled(fullName(policy), policy.kind);
  const decider = named
    ? policyCard(named, { isOpen: true })
    : policy && muted(`${policy.kind} ${fullName(policy)} does not exist any more.`);
  return [
    el('blockquote', { class: 'sentence', dataset: { verdict: flow.verdict } }, flow.sentence),
    el('p', { class: 'muted' }, packetOf(flow)),
    decider && section('The policy that decided', decider),
  ];
}

async function flowView({ flow }) {
  title(flow.verdict === 'DROPPED' ? 'Why it was dropped' : 'Why it passed');
  const was = { DROPPED: 'deny', FORWARDED: 'allow', AUDIT: null }[flow.verdict];
  const [from, to] = [pointer(flow.source), pointer(flow.destination)];
  // A pod's own address is nobody's to deny; on the way by a Service it is.
  const by = from === to ? flow.service : null;
  const [asked, port] = by ? [by.ip, by.port] : [to, flow.destination.port];
  return [...told(flow), ...(await present(from, asked, port, flow.protocol, was))];
}

async function edgeView({ edge: { id } }) {
  const edge = store.edges.get(id);
  if (!edge) return [muted('This is gone.')];
  title(`${edge.from} → ${edge.to}`);
  const state = stateOf(edge);
  const end = (name) => (name.includes('/') ? `pod/${name}` : name);
  const was = edge.verdict === 'FORWARDED' ? 'allow' : 'deny';
  const isOfEdge = (flow) =>
    endName(flow.source) === edge.from &&
    endName(flow.destination) === edge.to &&
    flow.destination.port === edge.port &&
    flow.protocol === edge.protocol;
  const last = store.flows.findLast(isOfEdge);
  const fact = (name, value) => [el('dt', {}, name), el('dd', {}, value)];
  return [
    el('p', { class: 'state-line', dataset: { state } }, `${portText(edge)} ${STATES[state]}.`),
    el(
      'dl',
      { class: 'facts' },
      fact('Passed', count(edge.forwarded, 'connection')),
      fact('Dropped', count(edge.dropped, 'time')),
      edge.audited > 0 && fact('Audit', count(edge.audited, 'time')),
      fact('Last', `${clock(edge.last)}, ${ago(edge.last)}`),
    ),
    ...(last ? told(last) : []),
    ...(edge.from === 'node' || edge.to === 'node'
      ? [muted('The node may always reach its pods; no policy is asked.')]
      : await present(end(edge.from), end(edge.to), edge.port, edge.protocol, was)),
  ];
}

function lineView({ from, to }) {
  const within = (end, name) =>
    end.startsWith('[') ? name.startsWith(`${end.slice(1, -1)}/`) : end === name;
  title(`${from} → ${to}`);
  const parts = [
    section(
      'Seen',
      edgeList((edge) => within(from, edge.from) && within(to, edge.to)),
    ),
  ];
  if (!from.startsWith('[')) parts.push(section(`${from} may reach`, reachList(from, 'from')));
  return parts;
}

async function show({ isAnew }) {
  const own = ++turn;
  const selection = store.selection;
  const views = {
    pod: (s) => podView(s.id),
    address: (s) => [
      section(
        'Seen',
        edgeList((e) => e.from === s.id || e.to === s.id),
      ),
    ],
    flow: flowView,
    edge: edgeView,
    line: lineView,
  };
  let parts;
  try {
    if (selection?.kind === 'address') title(selection.id);
    parts = selection ? await views[selection.kind](selection) : overview();
  } catch (error) {
    parts = [el('p', { class: 'error' }, error.message)];
  }
  if (own !== turn) return;
  byId('inspector-close').hidden = selection === null;
  const body = byId('inspector');
  // What somebody has unfolded stays so when it is drawn anew.
  const open = isAnew
    ? []
    : [...body.querySelectorAll('details[open]')].map((card) => card.dataset.policy);
  body.replaceChildren(...parts.flat().filter(Boolean));
  for (const card of body.querySelectorAll('details'))
    if (open.includes(card.dataset.policy)) card.open = true;
}

export function start() {
  on('selection', () => {
    show({ isAnew: true });
    if (!store.selection) return;
    if (!byId('inspector').contains(document.activeElement)) origin = document.activeElement;
    byId('inspector-title').focus({ preventScroll: window.innerWidth > 980 });
  });
  // Back to where it was chosen.
  byId('inspector').parentElement.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    select(null);
    origin?.focus();
  });
  const hasFocus = () => byId('inspector').contains(document.activeElement);
  let generation = 0;
  on('health', () => {
    if (store.health.generation === generation) return;
    generation = store.health.generation;
    if (!hasFocus()) show({ isAnew: false });
  });
  let drawn = '';
  on('objects', () => {
    const names = policies().map(fullName).join();
    if (store.selection === null && names !== drawn && !hasFocus()) show({ isAnew: false });
    drawn = names;
  });
  on('reach', () => {
    if (!hasFocus() && store.selection) show({ isAnew: false });
  });
  byId('inspector-close').addEventListener('click', () => {
    select(null);
    byId('inspector-title').focus();
  });
}
