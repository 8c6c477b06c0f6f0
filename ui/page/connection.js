// The stream of events: what comes is put into the store. It comes back by itself.

import { HISTORY, store, tell } from './store.js';

/** A page that nobody looks at lets its stream go after this time: the daemon has few clients. */
const HIDDEN_MS = 30_000;
const AGAIN_MS = 1000;

let source = null;
let query = '';
let hidden = null;
let again = null;
let number = 0;
// Between a reset and the first complete answer the old picture stays.
let fresh = null;
let freshEdges = null;

function state(name, reason = '') {
  const { connection } = store;
  if (connection.state === name && connection.reason === reason) return;
  store.connection = { state: name, reason };
  tell('connection');
}

const key = (object) => `${object.kind}/${object.namespace}/${object.name}`;

const events = {
  reset() {
    fresh = new Map();
    freshEdges = true;
    store.flows = [];
    store.leftOut = 0;
    tell('flows');
    state('live');
  },

  objects({ objects, removed, synced }) {
    const into = fresh ?? store.objects;
    for (const gone of removed) into.delete(gone);
    for (const object of objects) into.set(key(object), object);
    if (fresh && synced) {
      store.objects = fresh;
      fresh = null;
    }
    if (!fresh) tell('objects');
  },

  health(health) {
    store.health = health;
    if (freshEdges && fresh === null) {
      // Whatever edges there are have come by the next beat.
      setTimeout(() => {
        if (freshEdges) events.edges({ edges: [], removed: [] });
      }, 400);
    }
    tell('health');
  },

  edges({ edges, removed }) {
    if (freshEdges) store.edges = new Map();
    freshEdges = null;
    for (const id of removed) store.edges.delete(id);
    for (const edge of edges) store.edges.set(edge.id, edge);
    tell('edges');
  },

  flows({ flows, leftOut }) {
    for (const flow of flows) flow.number = ++number;
    store.flows.push(...flows);
    if (store.flows.length > HISTORY) store.flows.splice(0, store.flows.length - HISTORY);
    store.leftOut += leftOut;
    tell('flows');
  },

  lost({ client, daemon }) {
    store.leftOut += client + daemon;
    tell('flows');
  },

  gone({ reason }) {
    state('daemon-gone', reason);
  },
};

function close() {
  clearTimeout(again);
  source?.close();
  source = null;
}

function open() {
  close();
  source = new EventSource(`/api/stream${query}`);
  for (const [name, take] of Object.entries(events)) {
    source.addEventListener(name, (event) => take(JSON.parse(event.data)));
  }
  const own = source;
  source.onerror = () => {
    state('server-gone', 'weir ui does not answer, or has as many pages open as it can');
    // A browser tries a broken connection again by itself, but not one that was refused.
    if (own.readyState === EventSource.CLOSED && own === source) again = setTimeout(open, AGAIN_MS);
  };
}

/** Takes other filters. Rejects with the server's words if it cannot read them. */
export async function filterBy(pairs) {
  const text = new URLSearchParams(pairs).toString();
  const wanted = text ? `?${text}` : '';
  const checked = await fetch(`/api/stream${wanted}`, { method: 'HEAD' });
  if (checked.status === 400) {
    // HEAD has no words; the same question without a stream behind it has.
    const answer = await fetch(`/api/stream${wanted}`);
    throw new Error((await answer.json()).error);
  }
  query = wanted;
  open();
}

export function connect() {
  open();
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hidden);
    if (document.visibilityState === 'hidden') hidden = setTimeout(close, HIDDEN_MS);
    else if (source === null) open();
  });
}
