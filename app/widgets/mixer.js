// The mixer: a channel for each head, with its gate as it is, mute, solo and level. `element`, `props`, `watch` and
// `trigger` are handed in by gr.HTML. A change asks the last question again, steered.
const colours = HEAD_COLOURS;
const channels = element.querySelector('.channels');
const caption = element.querySelector('.caption');
const heat = element.querySelector('.heat');
const heatValue = element.querySelector('.heat-value');
const layers = element.querySelector('.layers');
const flags = Object.fromEntries([...element.querySelectorAll('[data-flag]')].map((node) => [node.dataset.flag, node]));
const SETTLE = 250; // milliseconds after the last change of a slider
let run = null;
let state = {};
let due = null;

const fresh = (heads) => ({levels: Array(heads).fill(1), muted: Array(heads).fill(false), solo: null, uniform: false,
  top: false, temperature: 1, layers: ''});

const settings = () => ({
  levels: state.levels.map((level, head) => (state.muted[head] ? 0 : level)),
  solo: state.solo, uniform: state.uniform, top: state.top, temperature: state.temperature, layers: state.layers,
});

const send = (wait = 0) => {
  clearTimeout(due);
  due = setTimeout(() => trigger('steer', settings()), wait);
};

const press = (button, is) => button.setAttribute('aria-pressed', String(is));

const mark = () => {
  [...channels.children].forEach((channel, head) => {
    const silent = state.solo === null ? state.muted[head] || state.levels[head] === 0 : state.solo !== head;
    channel.classList.toggle('silent', silent && !state.uniform);
    press(channel.querySelector('.mute'), state.muted[head]);
    press(channel.querySelector('.solo'), state.solo === head);
    const level = channel.querySelector('.level');
    level.value = state.levels[head];
    level.setAttribute('aria-valuetext', `${state.levels[head]} times its gate`);
    channel.querySelector('.times').textContent = `×${state.levels[head]}`;
  });
  press(flags.uniform, state.uniform);
  press(flags.top, state.top);
  heat.value = state.temperature;
  heatValue.textContent = state.temperature;
  if (document.activeElement !== layers) layers.value = state.layers;
  const changed = JSON.stringify(settings()) !== JSON.stringify({...settings(), ...fresh(state.levels.length), muted: undefined});
  element.classList.toggle('steered', changed);
};

const channel = (name, head) => {
  const node = element.querySelector('template').content.firstElementChild.cloneNode(true);
  node.style.setProperty('--head', colours[head % colours.length]);
  node.dataset.head = head;
  node.querySelector('.name').textContent = head + 1;
  node.querySelector('.component').textContent = name || 'no component of its own';
  node.querySelector('.component').title = name;
  node.querySelector('.mute').setAttribute('aria-label', `Mute head ${head + 1}`);
  node.querySelector('.solo').setAttribute('aria-label', `Solo head ${head + 1}: it gets the whole weight`);
  node.querySelector('.level').setAttribute('aria-label', `Level of head ${head + 1}`);
  node.querySelector('.mute').addEventListener('click', () => {
    state.muted[head] = !state.muted[head];
    if (state.muted.every((is) => is)) state.muted[head] = false; // one head must be left
    state.solo = null;
    mark();
    send();
  });
  node.querySelector('.solo').addEventListener('click', () => {
    state.solo = state.solo === head ? null : head;
    state.uniform = false;
    mark();
    send();
  });
  node.querySelector('.level').addEventListener('input', (event) => {
    state.levels[head] = Number(event.target.value);
    if (state.levels.every((level) => level === 0)) state.levels[head] = 0.1;
    state.solo = null;
    state.uniform = false;
    mark();
    send(SETTLE);
  });
  return node;
};

const draw = () => {
  const {run: of = '', heads = 0, names = []} = props.value || {};
  window.studio.heads = {names};
  element.classList.toggle('none', !heads);
  element.classList.toggle('unknown', !of); // no run, or not known yet
  if (of !== run || channels.children.length !== heads) {
    run = of;
    state = fresh(heads);
    channels.replaceChildren(...Array.from({length: heads}, (_, head) => channel(names[head], head)));
    mark();
  }
  document.dispatchEvent(new CustomEvent('heads-shown'));
};

// The gates of the token that the conversation shows.
document.addEventListener('token-shown', ({detail}) => {
  const gates = detail?.gates ?? [];
  [...channels.children].forEach((node, head) => {
    const gate = (gates[head] ?? 0) / 1000;
    node.querySelector('.bar').style.setProperty('--gate', gate);
    node.querySelector('.gate').textContent = gates.length ? gate.toFixed(2) : '';
    node.classList.toggle('leads', detail?.head === head);
  });
  if (!gates.length) return (caption.textContent = detail ? 'This answer has no gates.' : '');
  const which = detail.isSelected ? `token ${detail.place + 1} of ${detail.count}${detail.ofPrompt ? ' of the prompt' : ''}` : 'newest token';
  const leads = detail.head === null ? 'no head leads' : `head ${detail.head + 1} leads`;
  caption.textContent = `${detail.column}, ${which}: ${leads}.`;
});

for (const [name, node] of Object.entries(flags))
  node.addEventListener('click', () => {
    state[name] = !state[name];
    if (state[name]) state.solo = null;
    mark();
    send();
  });
heat.addEventListener('input', () => {
  state.temperature = Number(heat.value);
  mark();
  send(SETTLE);
});
layers.addEventListener('change', () => {
  state.layers = layers.value;
  mark();
  send();
});
element.querySelector('.reset').addEventListener('click', () => {
  state = fresh(state.levels.length);
  mark();
  send();
});
draw();
watch('value', draw);
