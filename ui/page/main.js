// Puts the parts of the page together.

import { connect } from './connection.js';
import { byId } from './dom.js';
import * as filters from './filters.js';
import * as flows from './flows.js';
import * as graph from './graph.js';
import * as header from './header.js';
import * as inspector from './inspector.js';
import * as question from './question.js';
import { wantReach } from './reach.js';
import { store, tell } from './store.js';

header.start();
graph.start();
flows.start();
inspector.start();
question.start();

for (const radio of document.querySelectorAll('input[name=mode]')) {
  radio.addEventListener('change', () => {
    store.mode = radio.value;
    if (store.mode === 'policy') wantReach();
    tell('mode');
  });
}

connect();
filters.start().catch((error) => {
  byId('filter-error').textContent = error.message;
  byId('filter-error').hidden = false;
});
