// The components of a dataset. `element`, `props`, `watch` and `trigger` are handed in by gr.HTML.
const colours = MARK_COLOURS;
const signs = MARK_SIGNS;
const AWAITED = 4; // grey lines while the components are being computed
const list = element.querySelector('ol');

const piece = (className, text = '') => {
  const node = document.createElement('span');
  node.className = className;
  node.textContent = text;
  return node;
};

const rows = (count) => `${count.toLocaleString('en')} ${count === 1 ? 'row' : 'rows'}`;

const line = ({number, name, size, share, selected, example}, chosen) => {
  const item = document.createElement('li');
  const button = document.createElement('button');
  button.type = 'button';
  button.dataset.number = number;
  button.setAttribute('aria-pressed', String(number === chosen));
  const place = number - 1;
  const sign = piece('sign', signs[place % signs.length]);
  sign.style.color = colours[place % colours.length];
  sign.setAttribute('aria-hidden', 'true');
  const track = piece('track');
  const bar = piece('bar');
  bar.style.width = `${100 * share}%`;
  bar.style.background = colours[place % colours.length];
  track.append(bar);
  const told = selected ? `${selected.toLocaleString('en')} of ${rows(size)} selected` : `${rows(size)}, ${Math.round(100 * share)} %`;
  button.append(sign, piece('name', `${number}: ${name}`), piece('size', told), track, piece('example', example));
  button.title = example;
  item.append(button);
  return item;
};

const draw = () => {
  const awaited = !props.value;
  list.setAttribute('aria-busy', String(awaited));
  if (awaited) {
    list.replaceChildren(...Array.from({length: AWAITED}, () => document.createElement('li')));
    return;
  }
  const focused = list.contains(document.activeElement) && document.activeElement.dataset.number;
  const {components, chosen} = props.value;
  list.replaceChildren(...components.map((component) => line(component, chosen)));
  if (focused) list.querySelector(`[data-number="${focused}"]`)?.focus();
};

list.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('pick', {number: button.getAttribute('aria-pressed') === 'true' ? 0 : Number(button.dataset.number)});
});
draw();
watch('value', draw);
