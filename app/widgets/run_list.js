// All runs, one a line. `element`, `props`, `watch` and `trigger` are handed in by gr.HTML. Texts are never HTML.
const find = element.querySelector('input[type=search]');
const choices = element.querySelector('.columns > div');
const head = element.querySelector('thead tr');
const body = element.querySelector('tbody');
const PAGES = [['chat', 'Ask it in Chat'], ['explore', 'Explore its A and B'], ['train', 'See its training']];
let sorted = {column: null, down: false};
let hidden = null; // the names of the columns that are not shown
try { hidden = JSON.parse(window.studio.stored('runs-columns')); } catch { /* another version's */ }

const make = (tag, className = '', text = '') => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.textContent = text;
  return node;
};

const curve = (losses) => {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 96 26');
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', 'No losses yet');
  if (losses.length < 2) return svg;
  svg.setAttribute('aria-label', `Loss from ${losses[0].toPrecision(3)} to ${losses.at(-1).toPrecision(3)}`);
  const top = Math.max(...losses);
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
  line.setAttribute('points', losses.map((loss, i) => `${(96 * i) / (losses.length - 1)},${25 - (24 * loss) / top}`).join(' '));
  svg.append(line);
  return svg;
};

const open = (id, page) => {
  trigger('pick', {id});
  window.studio.go(page);
};

const menu = (run) => {
  const details = make('details', 'menu');
  const summary = make('summary', '', '⋯');
  summary.setAttribute('aria-label', `More for ${run.name}`);
  const box = make('div');
  for (const [page, label] of PAGES) {
    const button = make('button', '', label);
    button.type = 'button';
    button.addEventListener('click', () => open(run.id, page));
    box.append(button);
  }
  details.append(summary, box);
  details.addEventListener('toggle', () => { // beside its button, not cut off by the list
    const {bottom, right} = summary.getBoundingClientRect();
    box.style.top = `${Math.min(bottom, window.innerHeight - box.offsetHeight - 8)}px`;
    box.style.right = `${document.documentElement.clientWidth - right}px`;
  });
  details.addEventListener('keydown', (event) => { if (event.key === 'Escape') { details.open = false; summary.focus(); } });
  details.addEventListener('focusout', (event) => { if (!details.contains(event.relatedTarget)) details.open = false; });
  return details;
};

const name = (run) => {
  const cell = make('td');
  const button = make('button', 'pick');
  button.type = 'button';
  button.dataset.run = run.id;
  const dot = make('span', `dot ${run.dot}`);
  dot.setAttribute('aria-hidden', 'true');
  const words = make('span', '', run.name);
  words.append(make('span', 'state', run.state));
  if (run.fraction !== null) {
    const bar = make('span', 'bar');
    const filled = make('i');
    filled.style.width = `${100 * run.fraction}%`;
    bar.append(filled);
    words.append(bar);
  }
  button.append(dot, words);
  button.addEventListener('click', () => trigger('pick', {id: run.id}));
  cell.append(button);
  return cell;
};

const compare = (a, b) => {
  if (a === null || a === '') return 1; // what is not known comes last, either way
  if (b === null || b === '') return -1;
  const order = typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b));
  return sorted.down ? -order : order;
};

const lines = () => {
  const {columns, runs} = props.value;
  const words = find.value.trim().toLowerCase();
  const told = (run) => [run.name, run.state, ...run.cells].join(' ').toLowerCase();
  const found = words ? runs.filter((run) => told(run).includes(words)) : [...runs];
  if (sorted.column === '') found.sort((a, b) => compare(a.name, b.name));
  else if (sorted.column !== null) {
    const at = columns.findIndex((column) => column.name === sorted.column);
    if (at >= 0) found.sort((a, b) => compare(a.cells[at], b.cells[at]));
  }
  return found;
};

const heading = (label, column, kind) => {
  const cell = make('th', kind);
  const button = make('button', '', label + (sorted.column === column ? (sorted.down ? ' ↓' : ' ↑') : ''));
  button.type = 'button';
  cell.setAttribute('aria-sort', sorted.column === column ? (sorted.down ? 'descending' : 'ascending') : 'none');
  button.addEventListener('click', () => {
    sorted = {column, down: sorted.column === column && !sorted.down};
    draw();
  });
  cell.append(button);
  return cell;
};

const offer = () => {
  choices.replaceChildren(...props.value.columns.map((column) => {
    const label = make('label');
    const box = make('input');
    box.type = 'checkbox';
    box.checked = !hidden.includes(column.name);
    box.addEventListener('change', () => {
      hidden = box.checked ? hidden.filter((name) => name !== column.name) : [...hidden, column.name];
      window.studio.store('runs-columns', JSON.stringify(hidden));
      draw();
    });
    label.append(box, column.name);
    return label;
  }));
};

// The runs of a study are one line that unfolds; what is looked for is shown in any case.
let unfolded = [];
try { unfolded = JSON.parse(window.studio.stored('runs-unfolded')) ?? []; } catch { /* another version's */ }

const group = (study, runs, width) => {
  const line = make('tr', 'study');
  const cell = make('th');
  cell.scope = 'rowgroup';
  cell.colSpan = width;
  const open = unfolded.includes(study);
  const done = runs.filter((run) => run.dot === 'finished').length;
  const failed = runs.filter((run) => run.dot === 'failed').length;
  const button = make('button', '', `${open ? '▾' : '▸'} Study ${study}`);
  button.append(make('span', 'state', `${done} of ${runs.length} runs finished${failed ? `, ${failed} failed` : ''}`));
  button.type = 'button';
  button.dataset.run = study;
  button.setAttribute('aria-expanded', String(open));
  button.addEventListener('click', () => {
    unfolded = open ? unfolded.filter((name) => name !== study) : [...unfolded, study];
    window.studio.store('runs-unfolded', JSON.stringify(unfolded));
    draw();
  });
  cell.append(button);
  line.append(cell);
  return line;
};

const rows = (columns) => {
  const found = lines();
  if (find.value.trim()) return found.map((run) => row(run, columns));
  const seen = new Set();
  return found.flatMap((run) => {
    if (!run.study) return [row(run, columns)];
    if (seen.has(run.study)) return [];
    seen.add(run.study);
    const members = found.filter((other) => other.study === run.study);
    const shown = unfolded.includes(run.study) ? members : members.filter((other) => other.id === props.value.chosen);
    return [group(run.study, members, columns.length + 3), ...shown.map((other) => row(other, columns))];
  });
};

const row = (run, columns) => {
  const line = make('tr');
  line.setAttribute('aria-selected', String(run.id === props.value.chosen));
  const loss = make('td');
  loss.append(curve(run.curve));
  const last = make('td');
  last.append(menu(run));
  line.append(name(run), loss, ...columns.map(([column, i]) => {
    const value = run.cells[i];
    const cell = make('td', column.kind, value === null ? '' : typeof value === 'number' ? value.toLocaleString('en', {maximumFractionDigits: 4}) : value);
    cell.dataset.label = column.name;
    return cell;
  }), last);
  return line;
};

const draw = () => {
  if (!props.value) return;
  const {columns, runs} = props.value;
  if (!Array.isArray(hidden)) hidden = columns.filter((column) => !column.shown).map((column) => column.name);
  const focused = body.contains(document.activeElement) && document.activeElement.dataset.run;
  const shown = columns.map((column, i) => [column, i]).filter(([column]) => !hidden.includes(column.name));
  const loss = make('th', '', 'loss');
  const more = make('th');
  more.append(make('span', 'off-screen', 'more'));
  head.replaceChildren(heading('run', ''), loss, ...shown.map(([column]) => heading(column.name, column.name, column.kind)), more);
  body.replaceChildren(...rows(shown));
  if (!choices.children.length) offer();
  element.querySelector('.none').hidden = runs.length > 0;
  if (focused) body.querySelector(`[data-run="${focused}"]`)?.focus();
};

find.addEventListener('input', draw);
draw();
watch('value', draw);
