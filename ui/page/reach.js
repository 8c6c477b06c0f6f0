// Who may reach whom by policy: the matrix, asked for when it is wanted and then kept as new as the
// generation.

import { ask } from './dom.js';
import { on, store, tell } from './store.js';

const AGAIN_MS = 500;
const AFTER_ERROR_MS = 5000;

let isWanted = false;
let isAsking = false;

const isNew = () => store.reach?.generation === store.health?.generation;

/** Asks for the matrix, and from now on for that of every generation. */
export async function wantReach() {
  isWanted = true;
  if (isAsking || isNew()) return;
  isAsking = true;
  try {
    store.reach = await ask('/api/matrix');
  } catch (error) {
    store.reach = { generation: null, from: [], columns: [], error: error.message };
  }
  isAsking = false;
  tell('reach');
  // Generations may have come meanwhile; many come at once when pods do.
  if (!isNew()) setTimeout(wantReach, store.reach.error ? AFTER_ERROR_MS : AGAIN_MS);
}

on('health', () => {
  if (isWanted && !store.reach?.error) wantReach();
});
