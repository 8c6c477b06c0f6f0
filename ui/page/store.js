// What the page knows, and who wants to hear when it changes.

/** Flows that are kept; the oldest go. */
export const HISTORY = 2000;

const listeners = new Map();

export const store = {
  /** By `KIND/NS/NAME`. */
  objects: new Map(),
  /** By number: who has talked to whom. */
  edges: new Map(),
  /** The oldest first. */
  flows: [],
  /** Flows that the daemon, the server or this page left out. */
  leftOut: 0,
  health: null,
  connection: { state: 'connecting', reason: '' },
  /** Nothing, or what the inspector shows: `{kind: 'pod'|'edge'|'flow'|'policy', …}`. */
  selection: null,
  /** `flows` or `policy`. */
  mode: 'flows',
  /** The matrix of the live generation, when it is wanted. */
  reach: null,
};

/** Topics: objects, edges, flows, health, connection, selection, mode, reach. */
export function on(topics, listener) {
  for (const topic of topics.split(' ')) {
    if (!listeners.has(topic)) listeners.set(topic, []);
    listeners.get(topic).push(listener);
  }
}

export function tell(topic) {
  for (const listener of listeners.get(topic) ?? []) listener();
}

export function select(selection) {
  store.selection = selection;
  tell('selection');
}

export const all = (kind) => [...store.objects.values()].filter((object) => object.kind === kind);

export const pods = () => all('Pod').filter((pod) => !['Succeeded', 'Failed'].includes(pod.phase));

export const isPolicy = (object) =>
  object.kind.endsWith('Policy') || object.kind === 'SecurityGroup';

export const policies = () => [...store.objects.values()].filter(isPolicy);

export const fullName = (object) =>
  object.namespace ? `${object.namespace}/${object.name}` : object.name;

/** The policy that a flow or a trace names, if it is still there. */
export function policyCalled(name, kind) {
  return policies().find((policy) => fullName(policy) === name && (!kind || policy.kind === kind));
}

/** What an end of a flow is called: as an edge calls it, but for the node. */
export const endName = (end) => (end.pod ? `${end.namespace}/${end.pod}` : end.ip);
