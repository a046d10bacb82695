// The shown token's gates by layer and head, and the likeliest tokens at its place. `element` is handed in by gr.HTML.
const colours = HEAD_COLOURS;
const svg = element.querySelector('svg');
const others = element.querySelector('.others');
const readout = element.querySelector('.readout');
const NAMESPACE = 'http://www.w3.org/2000/svg';
const LEFT = 100, TOP = 2, BOTTOM = 20, WIDTH = 340, ROW = 22;
let shape = '';
let cells = [];

const add = (tag, attributes, text) => {
  const node = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  svg.append(node);
  return node;
};

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// Made once for a model; then only colours change.
const build = (layers, heads) => {
  svg.replaceChildren();
  const width = (WIDTH - LEFT) / layers.length;
  const height = TOP + heads * ROW + BOTTOM;
  svg.setAttribute('viewBox', `0 0 ${WIDTH} ${height}`);
  for (let head = 0; head < heads; head++) {
    const name = window.studio.heads?.names?.[head];
    const label = add('text', {x: 0, y: TOP + head * ROW + ROW / 2 + 4}, short(`${head + 1} ${name ?? ''}`, 14));
    label.append(Object.assign(document.createElementNS(NAMESPACE, 'title'), {textContent: name ?? ''}));
  }
  cells = layers.flatMap((layer, i) => Array.from({length: heads}, (_, head) => add('rect', {
    x: LEFT + i * width, y: TOP + head * ROW, width: width + 0.4, height: ROW - 2, fill: colours[head % colours.length],
    'data-layer': layer, 'data-head': head,
  })));
  const step = Math.ceil(layers.length / 6);
  layers.forEach((layer, i) => {
    if (i % step === 0) add('text', {x: LEFT + (i + 0.5) * width, y: height - 6, 'text-anchor': 'middle'}, layer);
  });
  add('text', {x: LEFT - 8, y: height - 6, 'text-anchor': 'end'}, 'layer');
};

document.addEventListener('token-shown', ({detail}) => {
  const grid = detail?.grid ?? [];
  element.classList.toggle('none', !grid.length);
  const listed = detail?.isSelected ? (detail.others ?? []) : [];
  others.replaceChildren(...listed.map(([text, share]) => {
    const item = document.createElement('li');
    item.textContent = `${JSON.stringify(text)} ${(share / 10).toFixed(1)} %`;
    return item;
  }));
  others.hidden = !listed.length;
  if (!grid.length) return;
  const heads = grid.length / detail.layers.length;
  const now = `${detail.layers.join()} ${heads} ${window.studio.heads?.names?.join()}`;
  if (now !== shape) build(detail.layers, heads);
  shape = now;
  cells.forEach((cell, i) => cell.setAttribute('fill-opacity', grid[i] / 1000));
  svg.setAttribute('aria-label', `Gates by layer and head: ${detail.gates.map((gate, head) => `head ${head + 1} ${(gate / 1000).toFixed(2)}`).join(', ')} on average`);
  cells.values = grid;
});

svg.addEventListener('pointermove', (event) => {
  const i = cells.indexOf(event.target);
  readout.textContent = i < 0 ? '' : `layer ${event.target.dataset.layer}, head ${Number(event.target.dataset.head) + 1}: ${(cells.values[i] / 1000).toFixed(2)}`;
});
svg.addEventListener('pointerleave', () => (readout.textContent = ''));
