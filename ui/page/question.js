// May A reach B on port P? Answered by `trace`, which asks what the workers ask.

import { ask, byId, el } from './dom.js';
import { policyCard } from './inspector.js';
import { fullName, all, on, pods, policyCalled, store } from './store.js';

const quoted = (text) => (/^[\w./:-]+$/.test(text) ? text : `'${text}'`);

/** The answer of `trace` as a list of what was consulted. */
export function answerOf({ json: trace }) {
  const isOpen = trace.verdict === 'allow';
  const ends = el(
    'p',
    { class: 'verdict-line' },
    el(
      'span',
      { class: 'badge big', dataset: { verdict: isOpen ? 'FORWARDED' : 'DROPPED' } },
      isOpen ? 'yes' : 'no',
    ),
    el(
      'span',
      {},
      `${trace.from} `,
      el('span', { class: 'muted' }, 'to'),
      ` ${trace.to} `,
      el('strong', {}, trace.port === null ? trace.protocol : `${trace.port}/${trace.protocol}`),
    ),
  );
  const steps = trace.steps.map((step) => {
    const policy = step.policy && policyCalled(step.policy, step.kind);
    const rule =
      step.rule === null ? '' : ` rule ${step.rule}${step.ruleName ? ` (${step.ruleName})` : ''}`;
    return el(
      'li',
      { class: 'step', dataset: { result: step.result } },
      el(
        'div',
        { class: 'step-head' },
        el('span', { class: 'step-way' }, step.direction),
        el(
          'span',
          {},
          step.policy
            ? `${step.kind} ${step.policy}${rule}`
            : step.tier === 'default'
              ? 'no policy'
              : step.tier,
        ),
        el('span', { class: 'step-result' }, step.result),
      ),
      step.nearestMiss &&
        el(
          'p',
          { class: 'miss' },
          el('span', { class: 'muted' }, 'nearest miss: '),
          step.nearestMiss,
        ),
      policy && policyCard(policy, { label: 'show the policy' }),
    );
  });
  const other =
    trace.otherFamily && trace.otherFamily !== trace.verdict
      ? el(
          'p',
          { class: 'note' },
          `This is over ${trace.family}; over the other family: ${trace.otherFamily}.`,
        )
      : null;
  return el(
    'div',
    { class: 'trace' },
    ends,
    el(
      'p',
      { class: 'reason' },
      trace.reason,
      el('span', { class: 'muted' }, ` · generation ${trace.generation}`),
    ),
    other,
    trace.audit.map((audit) => el('p', { class: 'note' }, `${audit.direction}: ${audit.reason}`)),
    el('ol', { class: 'steps', 'aria-label': 'Policies consulted' }, steps),
  );
}

/** Asks, with what is written in the form. */
async function answer(event) {
  event?.preventDefault();
  const protocol = byId('protocol').value;
  const question = {
    from: byId('from').value.trim(),
    to: byId('to').value.trim(),
    port: protocol === 'ICMP' ? '' : byId('port').value.trim(),
    protocol,
  };
  const flags = ['from', 'to', 'port', 'protocol'].filter((flag) => question[flag]);
  const command = [
    'weir trace',
    ...flags
      .filter((flag) => flag !== 'protocol' || protocol !== 'TCP')
      .map((flag) => `--${flag} ${quoted(question[flag])}`),
  ].join(' ');
  const into = byId('answer');
  try {
    into.replaceChildren(
      answerOf(await ask('/api/trace', question)),
      el('code', { class: 'command' }, command),
    );
  } catch (error) {
    into.replaceChildren(el('p', { class: 'error' }, error.message));
  }
}

/** Writes a question into the form and asks it. */
export function put({ from, to, port, protocol }) {
  byId('from').value = from;
  byId('to').value = to;
  byId('port').value = port ?? '';
  byId('protocol').value = protocol.startsWith('ICMP') ? 'ICMP' : protocol;
  return answer();
}

function suggest() {
  const names = pods().map(fullName);
  const services = all('Service').map(fullName);
  const both = services.filter((name) => names.includes(name));
  const plain = services.filter((name) => !names.includes(name));
  const options = (values) => [...new Set(values)].sort().map((value) => el('option', { value }));
  byId('ends-from').replaceChildren(...options(names));
  byId('ends-to').replaceChildren(
    ...options([...names, ...plain, ...both.map((name) => `service/${name}`)]),
  );
}

function suggestPorts() {
  const to = byId('to').value.trim();
  const of = [...pods(), ...all('Service')].filter(
    (one) => fullName(one) === to || `service/${fullName(one)}` === to,
  );
  const ports = of.flatMap((one) => one.ports.map(({ port }) => String(port)));
  byId('ports').replaceChildren(...[...new Set(ports)].map((value) => el('option', { value })));
  if (byId('port').value === '' && ports.length > 0) byId('port').value = ports[0];
}

export function start() {
  byId('question').addEventListener('submit', answer);
  byId('to').addEventListener('change', suggestPorts);
  let generation = 0;
  on('objects', suggest);
  // An answer is of its generation: a newer one answers again.
  on('health', () => {
    const fresh = store.health.generation;
    if (generation !== fresh && generation > 0 && byId('answer').querySelector('.trace')) answer();
    generation = fresh;
  });
}
