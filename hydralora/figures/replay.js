// Plays answers side by side, token by token, with their gates. Texts are set as textContent: never as HTML.
const REPLAY = `<p class="about"></p>
<blockquote class="question"></blockquote>
<div class="controls">
  <button class="play" type="button">Play</button>
  <input class="place" type="range" min="0" value="0" aria-label="Token">
  <span class="count"></span>
</div>
<div class="legend"></div>
<div class="answers"></div>
<div class="below">
  <div><p>Gate of each head, mean over the layers</p><div class="bars"></div></div>
  <div><p>Gate of each head in each layer: the stronger the colour, the larger</p>
    <div class="scroll" tabindex="0" role="region" aria-label="Gates by module and head">
      <table class="heat"></table></div></div>
  <div class="weighed"><p>Likeliest tokens at this place</p><table class="others"></table></div>
</div>
<p class="how">Each token has the colour and the line of its strongest head, the stronger the further that head leads. Pale
tokens are the question's, with the gates that they were read with; a token of the answer has those that it was chosen
with. A gate is the weight a head gets, not how much that head changed the answer.</p>`;

// `answers` are [{name, whose, trace}], as hydralora.inference.traces writes a trace; `first` is the selected token, and
// `names` are the components that the heads have taken. The root then has `goTo(token)`, and says `place-shown` when a
// person has gone to another token.
window.replay = (root, answers, first = 0, names = []) => {
  const colours = HEAD_COLOURS;
  const colour = (head) => colours[head % colours.length];
  const find = (query) => root.querySelector(query);
  const make = (tag, text, parent) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    parent?.append(node);
    return node;
  };
  const headName = (head) => `head ${head + 1}${names[head] ? `, ${names[head]}` : ''}`;
  // "o_proj, layer 6" for "model.layers.6.self_attn.o_proj".
  const moduleName = (module) => {
    const layer = module.match(/\.(\d+)\./)?.[1];
    return layer === undefined ? module : `${module.split('.').at(-1)}, layer ${layer}`;
  };
  const mean = (gates, head) => gates.reduce((sum, row) => sum + row[head], 0) / gates.length;
  const means = (gates) => (gates[0] ?? []).map((_, head) => mean(gates, head));
  const withMeans = (token, read) => ({...token, read, mean: means(token.gates)});
  root.classList.add('replay');
  root.innerHTML = REPLAY;
  const asked = answers[0].trace;
  find('.about').textContent = `Temperature ${asked.sampling.temperature}, seed ${asked.sampling.seed}.`;
  find('.question').textContent = asked.messages.at(-1).content.replace(/\n\s*\n/g, '\n');
  const columns = answers.map(({name, whose, trace}, column) => {
    const node = make('section', undefined, find('.answers'));
    node.className = 'answer';
    make('h2', name, node);
    const source = make('p', `${whose}, ${trace.base}`, node);
    source.title = source.textContent;
    const list = make('div', undefined, node);
    list.className = 'tokens';
    list.setAttribute('role', 'listbox');
    list.setAttribute('aria-label', `Tokens: ${name}`);
    list.tabIndex = 0;
    const read = trace.prompt.map((token) => withMeans(token, true));
    const tokens = [...read, ...trace.tokens.map((token) => withMeans(token, false))];
    const nodes = tokens.map((token, i) => {
      const node = make('span', token.text === '' ? '·' : token.text.replaceAll('\n', '⏎\n'), list);
      node.className = token.read ? 'token read' : 'token';
      node.setAttribute('role', 'option');
      const top = Math.max(0, ...token.mean);
      if (top >= 1 / token.mean.length + 0.05) { // else no head leads
        const head = token.mean.indexOf(top);
        node.style.setProperty('--head', colour(head));
        node.style.setProperty('--strength', `${Math.round(12 + 50 * (top - 1 / token.mean.length))}%`);
        node.dataset.head = head;
        node.title = `${headName(head)}: gate ${top.toFixed(2)}`;
      }
      node.onclick = () => { pause(); show(column, i); };
      return node;
    });
    list.onkeydown = (event) => {
      const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (!step) return;
      event.preventDefault();
      pause();
      const from = at[0] === column ? at[1] : trace.prompt.length - 1;
      show(column, Math.min(tokens.length - 1, Math.max(0, from + step)));
    };
    return {trace, tokens, nodes};
  });
  const heads = Math.max(...columns.map(({tokens}) => tokens[0]?.mean.length ?? 0));
  for (let head = 0; head < heads; head++)
    make('span', headName(head), find('.legend')).style.setProperty('--head', colour(head));
  const lead = Math.max(0, columns.findIndex(({tokens}) => tokens[0]?.mean.length));
  const place = find('.place');
  const longest = Math.max(...columns.map(({trace}) => trace.tokens.length));
  place.max = Math.max(0, longest - 1);
  let at = [lead, 0]; // the column and the token whose gates are shown
  const show = (column, i) => {
    at = [column, i];
    const {trace, tokens} = columns[column];
    for (const [other, {nodes}] of columns.entries())
      nodes.forEach((node, j) => node.setAttribute('aria-selected', other === column && j === i));
    const token = tokens[i];
    if (!token) return;
    find('.count').textContent = `${i + 1 - trace.prompt.length} of ${trace.tokens.length}`;
    find('.bars').classList.toggle('named', names.some(Boolean));
    find('.bars').replaceChildren(...token.mean.map((gate, head) => {
      const bar = make('div');
      bar.className = 'bar';
      make('span', names[head] ? `${head + 1}: ${names[head]}` : `head ${head + 1}`, bar).title = headName(head);
      const share = make('i', undefined, make('div', undefined, bar));
      share.style.setProperty('--head', colour(head));
      share.style.setProperty('--share', `${100 * gate}%`);
      make('span', gate.toFixed(2), bar);
      return bar;
    }));
    find('.weighed').hidden = !token.alternatives.length;
    find('.others').replaceChildren(...token.alternatives.map((one) => {
      const row = make('tr');
      make('td', one.text.replaceAll('\n', '⏎'), row);
      make('td', `${(100 * one.probability).toFixed(1)} %`, row);
      return row;
    }));
    const columnHeads = make('tr');
    make('td', undefined, columnHeads);
    token.mean.forEach((_, head) => make('th', head + 1, columnHeads));
    find('.heat').replaceChildren(columnHeads, ...token.gates.map((gates, module) => {
      const row = make('tr');
      make('th', moduleName(trace.modules[module]), row);
      gates.forEach((gate, head) => {
        const cell = make('td', undefined, row);
        cell.className = 'cell';
        cell.title = `${moduleName(trace.modules[module])}, ${headName(head)}: ${gate.toFixed(3)}`;
        cell.style.background = `color-mix(in srgb, ${colour(head)} ${Math.round(100 * gate)}%, transparent)`;
      });
      return row;
    }));
  };
  // All answers grow together; the gates are those of the first one that has some.
  const advance = (i, hide = false) => {
    place.value = i;
    root.dispatchEvent(new CustomEvent('place-shown', {bubbles: true, detail: i}));
    for (const {trace, nodes} of columns)
      nodes.forEach((node, j) => node.classList.toggle('later', hide && j > trace.prompt.length + i));
    const {trace, tokens} = columns[lead];
    show(lead, Math.min(tokens.length - 1, trace.prompt.length + i));
    find('.count').textContent = `${i + 1} of ${longest}`;
  };
  root.goTo = (i) => longest && advance(Math.max(0, Math.min(longest - 1, i)));
  let playing = null;
  const pause = () => { clearInterval(playing); playing = null; find('.play').textContent = 'Play'; };
  find('.play').onclick = () => {
    if (playing) return pause();
    find('.play').textContent = 'Pause';
    if (Number(place.value) >= longest - 1) place.value = -1;
    let i = Number(place.value);
    // A page that shows something else meanwhile has taken this one out of the document.
    playing = setInterval(() => (!root.isConnected || i >= longest - 1 ? pause() : advance(++i, true)), 350);
  };
  place.oninput = () => { pause(); advance(Number(place.value)); };
  root.goTo(first);
};
