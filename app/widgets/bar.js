// The bar: the run, its dataset, theme. `element`, `props`, `watch` and `trigger` are handed in by gr.HTML. Native lists:
// they open when a person asks, by mouse, keyboard or touch.
const [run, dataset] = element.querySelectorAll('select');
const dot = element.querySelector('.dot');
const id = element.querySelector('small');
const rename = element.querySelector('.rename');
const input = element.querySelector('input');

const fill = (select, entries, value, none) => {
  const listed = value ? entries : [['', none], ...entries];
  const known = JSON.stringify(listed);
  if (select.dataset.known !== known) {
    select.dataset.known = known;
    select.replaceChildren(...listed.map(([key, text]) => new Option(text, key)));
  }
  select.value = value ?? '';
};

const draw = () => {
  const {runs = [], run: chosen, datasets = [], dataset: rows} = props.value || {};
  const known = datasets.length > 0; // the server has answered
  fill(run, runs.map(({id, name}) => [id, name]), chosen, runs.length ? 'Choose a run' : known ? 'No run yet' : 'Loading …');
  fill(dataset, datasets, rows, known ? 'No dataset' : 'Loading …');
  const {state = '', name = ''} = runs.find((entry) => entry.id === chosen) || {};
  dot.className = `dot ${state}`;
  dot.title = state;
  id.textContent = name === chosen ? '' : chosen ?? ''; // a run without a name is listed by its id
  run.title = name;
  rename.hidden = !chosen;
  if (!known) return;
  window.studio.link({run: chosen});
  document.dispatchEvent(new CustomEvent('run-shown', {detail: chosen}));
};

const editing = (is) => {
  input.hidden = !is;
  run.hidden = is;
  if (!is) return rename.focus();
  input.value = run.selectedOptions[0]?.textContent ?? '';
  input.focus();
  input.select();
};

run.addEventListener('change', () => trigger('pick_run', {id: run.value}));
dataset.addEventListener('change', () => trigger('pick_dataset', {id: dataset.value}));
rename.addEventListener('click', () => editing(input.hidden));
input.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') return editing(false);
  if (event.key !== 'Enter') return;
  trigger('rename', {name: input.value});
  editing(false);
});
element.querySelector('.theme').addEventListener('click', () =>
  window.studio.theme(!document.body.classList.contains('dark')));
element.querySelector('.menu').addEventListener('click', () => document.body.classList.toggle('steps-open'));
draw();
watch('value', draw);
