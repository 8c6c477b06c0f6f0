// Where namespaces and pods stand. The same names give the same places, and who comes or goes moves
// nobody else: a place that is left is given to the next who comes, first to one of the same owner.

export const PILL = { width: 172, height: 34, gapX: 18, gapY: 13 };
const BOX = { pad: 16, title: 32, gap: 44, aside: 90 };
/** More boxes than this stand in rows instead of on a ring; folded ones are small. */
const RING = { open: 10, folded: 24 };

/** The name that all addresses outside share with no namespace. */
export const OUTSIDE = 'outside';

const inOrder = new Intl.Collator('en', { numeric: true });

class Places {
  #places = new Map();
  #left = new Map();

  /** Gives every name a place; names that are gone leave theirs. `owners` is by name. */
  update(names, owners = new Map()) {
    const wanted = new Set(names);
    for (const [name, { place, owner }] of [...this.#places]) {
      if (wanted.has(name)) continue;
      this.#places.delete(name);
      this.#left.set(place, owner);
    }
    for (const name of [...names].sort(inOrder.compare)) {
      if (this.#places.has(name)) continue;
      const owner = owners.get(name) ?? null;
      this.#places.set(name, { place: this.#take(owner), owner });
    }
  }

  #take(owner) {
    const free = [...this.#left.keys()].sort((a, b) => a - b);
    const own = free.find((place) => owner !== null && this.#left.get(place) === owner);
    const place = own ?? free[0] ?? this.#places.size;
    this.#left.delete(place);
    return place;
  }

  at(name) {
    return this.#places.get(name).place;
  }

  get length() {
    const taken = [...this.#places.values()].map(({ place }) => place + 1);
    return Math.max(0, ...taken);
  }
}

const namespaces = new Places();
const cells = new Map();

function columns(length) {
  return Math.max(1, Math.round(Math.sqrt(length / 5)));
}

function size(length, isFolded) {
  if (isFolded) return { width: 190, height: 62, across: 1 };
  const across = columns(length);
  const rows = Math.max(1, Math.ceil(length / across));
  return {
    width: 2 * BOX.pad + across * PILL.width + (across - 1) * PILL.gapX,
    height: BOX.title + BOX.pad + rows * PILL.height + (rows - 1) * PILL.gapY,
    across,
  };
}

function onRing(boxes, count, ratio) {
  const slots = Math.max(3, count + (count % 2));
  const overlaps = (a, b) =>
    Math.abs(a.x - b.x) < (a.width + b.width) / 2 + BOX.aside &&
    Math.abs(a.y - b.y) < (a.height + b.height) / 2 + BOX.gap;
  for (let radius = 60; ; radius += 12) {
    for (const box of boxes) {
      const angle = (Math.PI * (2 * box.place - 1)) / slots - Math.PI / 2;
      box.x = Math.cos(angle) * radius * ratio;
      box.y = Math.sin(angle) * radius;
    }
    const isTight = boxes.some((a, at) => boxes.slice(at + 1).some((b) => overlaps(a, b)));
    if (!isTight || radius > 20_000) return;
  }
}

function inRows(boxes, ratio) {
  const area = boxes.reduce((sum, box) => sum + (box.width + BOX.gap) * (box.height + BOX.gap), 0);
  const widest = Math.max(...boxes.map((box) => box.width));
  const limit = Math.max(widest, Math.sqrt(area * ratio));
  let [x, y, row] = [0, 0, 0];
  for (const box of boxes) {
    if (x > 0 && x + box.width > limit) [x, y, row] = [0, y + row + BOX.gap, 0];
    box.x = x + box.width / 2;
    box.y = y + box.height / 2;
    x += box.width + BOX.gap;
    row = Math.max(row, box.height);
  }
}

/**
 * Places boxes, given as `{name, folded, pods: [{id, owner}]}`, for a frame of that ratio of width
 * to height. Gives boxes and pills by name, all with their middles at (x, y), and the frame around
 * all.
 */
export function place(groups, ratio) {
  namespaces.update(groups.map((group) => group.name));
  const boxes = groups.map((group) => {
    if (!cells.has(group.name)) cells.set(group.name, new Places());
    const own = cells.get(group.name);
    const owners = new Map(group.pods.map((pod) => [pod.id, pod.owner]));
    own.update([...owners.keys()], owners);
    return { ...group, own, place: namespaces.at(group.name), ...size(own.length, group.folded) };
  });
  boxes.sort((a, b) => a.place - b.place);
  const shape = Math.min(2.2, Math.max(0.6, ratio));
  const isRing = boxes.length <= (boxes.every((box) => box.folded) ? RING.folded : RING.open);
  if (isRing) onRing(boxes, namespaces.length, shape);
  else inRows(boxes, shape);

  const pills = new Map();
  for (const box of boxes) {
    if (box.folded) continue;
    const left = box.x - box.width / 2 + BOX.pad + PILL.width / 2;
    const top = box.y - box.height / 2 + BOX.title + PILL.height / 2;
    for (const pod of box.pods) {
      const cell = box.own.at(pod.id);
      pills.set(pod.id, {
        x: left + (cell % box.across) * (PILL.width + PILL.gapX),
        y: top + Math.floor(cell / box.across) * (PILL.height + PILL.gapY),
        width: PILL.width,
        height: PILL.height,
      });
    }
  }
  const edge = (pick, sign, half) =>
    sign * Math.max(...boxes.map((box) => sign * box[pick] + box[half] / 2));
  const frame =
    boxes.length === 0
      ? { left: -300, top: -150, right: 300, bottom: 150 }
      : {
          left: edge('x', -1, 'width'),
          right: edge('x', 1, 'width'),
          top: edge('y', -1, 'height'),
          bottom: edge('y', 1, 'height'),
        };
  return { boxes: new Map(boxes.map((box) => [box.name, box])), pills, frame, isRing };
}
