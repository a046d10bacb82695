// The formula of a layer with the numbers of one token. `element`, `props` and `watch` are handed in by gr.HTML. All
// tokens' numbers are there, so a click waits for nothing. Texts are set as textContent: never as HTML.
const colours = HEAD_COLOURS;
const strip = element.querySelector('.strip');
const which = element.querySelector('.which');
const picture = element.querySelector('.picture');
const rows = element.querySelector('tbody');
let chosen = 0;

const number = (value) => (value === 0 ? '0' : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3));
const share = (part, whole) => {
  const percent = whole ? (100 * part) / whole : 0;
  return percent > 0 && percent < 0.1 ? '< 0.1 %' : `${percent.toFixed(percent < 100 ? 1 : 0)} %`;
};
const headName = (head) => {
  const component = props.value.names[head];
  return `head ${head + 1}${component ? `, ${component}` : ''}`;
};

const tokenNode = ({text, of_answer: ofAnswer, lead}, place) => {
  const node = document.createElement('span');
  node.className = ofAnswer ? 'token answer-token' : 'token';
  node.textContent = text === '' ? '·' : text.replaceAll('\n', '⏎');
  node.setAttribute('role', 'option');
  node.setAttribute('aria-selected', 'false');
  node.dataset.place = place;
  node.title = lead === null ? 'no head leads in this layer' : `${headName(lead)} leads in this layer`;
  if (lead !== null) {
    node.dataset.head = lead;
    node.style.setProperty('--head', colours[lead % colours.length]);
  }
  return node;
};

const box = (name, about, norm) => {
  const node = picture.querySelector(`.box.${name}`);
  node.querySelector('.about').textContent = about;
  node.querySelector('.norm').textContent = norm;
  return node;
};

const cell = (tag, text, className) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== null) node.textContent = text;
  return node;
};

const barCell = (text, fraction) => {
  const node = cell('td', null, 'with-bar');
  const track = cell('span', null, 'track');
  track.style.setProperty('--part', Math.min(1, fraction));
  node.append(cell('span', text), track);
  return node;
};

const headRow = ([gate, product, added], head, token, most) => {
  const row = document.createElement('tr');
  row.dataset.head = head;
  row.style.setProperty('--head', colours[head % colours.length]);
  row.classList.toggle('leads', token.lead === head);
  const name = cell('th', null);
  name.scope = 'row';
  name.title = headName(head);
  name.append(cell('b', head + 1, 'mark'), cell('span', props.value.names[head] || '', 'component'));
  row.append(name, barCell(gate.toFixed(2), gate), cell('td', number(product)), barCell(number(added), most ? added / most : 0),
    cell('td', share(added, token.base)));
  return row;
};

const show = () => {
  const {tokens, sizes, shared_A: shared, scaling, router, layer} = props.value;
  const token = tokens[chosen];
  const [width, out, r, heads] = sizes;
  box('x', `the layer's input, ${width.toLocaleString('en')} numbers`, `‖x‖ = ${number(token.x)}`);
  box('w', `frozen weights, ${out.toLocaleString('en')} × ${width.toLocaleString('en')}`, `‖W x‖ = ${number(token.base)}`);
  const latent = token.latent.map(number);
  box('a', shared ? `shared by all heads, ${r} × ${width.toLocaleString('en')}` : `one for each head, ${r} × ${width.toLocaleString('en')}`,
    `‖A x‖ = ${latent.join(', ')}`);
  box('router', router ? `reads ${router}, a softmax gives ${heads} gates` : `equal gates for ${heads} heads`,
    token.lead === null ? 'no head leads' : `head ${token.lead + 1} leads, g = ${token.heads[token.lead][0].toFixed(2)}`);
  box('y', `W x + s Σ gᵢ Bᵢ A x, with s = ${Number(scaling.toPrecision(3))}`, `‖y‖ = ${number(token.output)}`)
    .querySelector('.adds').textContent = `The heads together add ${number(token.change)}: ${share(token.change, token.base)} of ‖W x‖.`;
  const most = Math.max(...token.heads.map(([, , added]) => added));
  rows.replaceChildren(...token.heads.map((head, i) => headRow(head, i, token, most)));
  picture.querySelector('.box.heads').dataset.shape = `B: ${heads} matrices of ${out.toLocaleString('en')} × ${r}. A head adds s gᵢ ‖Bᵢ A x‖.`;
  const part = token.of_answer ? 'of the expected answer' : 'of the prompt';
  which.textContent = `Token ${chosen + 1} of ${tokens.length}, ${part}: ${JSON.stringify(token.text)}, in ${layer}.`;
};

const choose = (place) => {
  strip.querySelector('[aria-selected=true]')?.setAttribute('aria-selected', 'false');
  chosen = place;
  const node = strip.children[place];
  node.setAttribute('aria-selected', 'true');
  strip.scrollTop = Math.max(0, node.offsetTop - strip.offsetTop - strip.clientHeight / 2);
  show();
};

// A new layer keeps the token; a new text begins at its first answer token, or where the address says.
let text = null;
const draw = () => {
  const {tokens, first} = props.value || {};
  picture.hidden = !tokens;
  element.classList.toggle('waiting', !tokens);
  if (!tokens) {
    strip.replaceChildren();
    which.textContent = '';
    text = null;
    return;
  }
  const now = tokens.map((token) => token.text).join('\u0000');
  const linked = text === null && new URLSearchParams(location.search).get('page') === 'learn'
    ? Number(new URLSearchParams(location.search).get('token') ?? first) : first;
  const wanted = now === text ? chosen : linked;
  text = now;
  strip.replaceChildren(...tokens.map(tokenNode));
  choose(Number.isInteger(wanted) && wanted >= 0 && wanted < tokens.length ? wanted : first);
};

const pick = (place) => {
  choose(place);
  window.studio.link({token: place});
};
strip.addEventListener('click', (event) => {
  const node = event.target.closest('.token');
  if (node) pick(Number(node.dataset.place));
});
strip.addEventListener('keydown', (event) => {
  const last = strip.children.length - 1;
  const to = {ArrowRight: chosen + 1, ArrowLeft: chosen - 1, Home: 0, End: last}[event.key];
  if (to === undefined || last < 0) return;
  event.preventDefault();
  pick(Math.max(0, Math.min(last, to)));
});
draw();
watch('value', draw);
// A strip in a hidden tab has no place to scroll to.
document.addEventListener('page-shown', ({detail}) => { if (detail === 'learn' && props.value) choose(chosen); });
