// The studies to choose from, each with a small figure. `element`, `props`, `watch` and `trigger` are handed in by
// gr.HTML. Texts are never HTML.
const cards = element.querySelector('.cards');

const make = (tag, className = '', text = '') => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.textContent = text;
  return node;
};

const drawn = (tag, attributes) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

const [WIDTH, HEIGHT] = [200, 48];
const boxed = (label, caption, shapes) => {
  const box = make('span', 'thumbnail');
  const svg = drawn('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': label});
  svg.append(...shapes);
  box.append(svg, make('span', 'range', caption));
  return box;
};

// What a study runs, before there are numbers: a row for each arm, a cell for each point of its axes.
const plan = ({about, arms, across}) => {
  const [high, wide] = [(HEIGHT - 8) / arms.length, (WIDTH - 12) / across];
  const cells = arms.flatMap((_, row) => Array.from({length: across}, (_, column) => drawn('rect', {
    x: 6 + column * wide, y: 4 + row * high, width: wide - 3, height: Math.max(high - 2, 1), rx: 1,
  })));
  return boxed(`${about}: ${arms.join(', ')}`, about, cells);
};

const measured = ({about, points}) => {
  const values = points.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const told = points.map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`).join(', ');
  const shapes = points.flatMap(([, value], i) => {
    const y = 4 + ((i + 0.5) * (HEIGHT - 8)) / points.length;  // no dot is cut at an edge
    const x = 6 + ((WIDTH - 12) * (value - low)) / (high - low || 1);
    return [drawn('line', {x1: 6, x2: WIDTH - 6, y1: y, y2: y}), drawn('circle', {cx: x, cy: y, r: 4})];
  });
  const range = `${about}, ${Number(low.toPrecision(4))} to ${Number(high.toPrecision(4))}`;
  return boxed(`${about}. ${told}`, range, shapes);
};

const thumbnail = (shown) => (shown.points.length ? measured(shown) : plan(shown));

const itemOf = (title, question, about, points, act) => {
  const item = make('li');
  const button = make('button', 'study-card');
  button.type = 'button';
  button.append(make('strong', '', title), make('span', 'question', question));
  if (points) button.append(thumbnail(points));
  button.append(make('span', 'about', about));
  button.addEventListener('click', act);
  item.append(button);
  return item;
};

const card = ({name, title, question, about, own, thumbnail: points}) => {
  const item = itemOf(own ? `${title} (yours)` : title, question, about, points, () => trigger('choose', {name}));
  const button = item.firstElementChild;
  button.dataset.study = name;
  button.setAttribute('aria-pressed', String(name === props.value.chosen));
  return item;
};

const cardElsewhere = ({title, question, about, page}) =>
  itemOf(title, question, about, null, () => window.studio.go(page));

const draw = () => {
  if (!props.value) return;
  const focused = element.contains(document.activeElement) && document.activeElement.dataset.study;
  cards.replaceChildren(...props.value.cards.map(card), ...props.value.elsewhere.map(cardElsewhere));
  if (focused) element.querySelector(`[data-study="${CSS.escape(focused)}"]`)?.focus();
};
draw();
watch('value', draw);
