// A lecture's screens, one picture each: shown by Present, by the page of a class, and by a lecture saved as a page.
// Texts are set as textContent: never as HTML.
window.lecture = {
  plotly: async () => window.Plotly, // the page of a class loads it at its first figure
  drawing: 0,

  // Shows a screen: {title, caption, figure: Plotly's or null, table: [heads, ...rows], answers: as of `replay`, heads: their
  // components}.
  async draw(root, screen, token = 0) {
    const number = ++this.drawing;
    const make = (tag, className, text = '') =>
      Object.assign(document.createElement(tag), {className, textContent: text});
    const picture = make('div', `picture${screen.figure ? ' figure' : ''}`);
    const old = root.querySelector('.js-plotly-plot');
    if (old) window.Plotly?.purge(old);
    root.classList.add('lecture');
    root.replaceChildren(make('h2', '', screen.title), picture, make('p', 'caption', screen.caption));
    root.dataset.screen = screen.name;
    if (screen.table.length) picture.append(this.table(screen.table));
    if (screen.answers.length) window.replay(picture.appendChild(make('div')), screen.answers, token, screen.heads);
    if (!screen.figure) return;
    const plotly = await this.plotly();
    if (number !== this.drawing) return; // another screen has been asked for meanwhile
    const {data, layout, frames} = this.themed(root, picture, screen.figure);
    await plotly.newPlot(picture, {data, layout, frames, config: {responsive: true, displayModeBar: false}});
  },

  problem(root, text) {
    this.drawing++;
    root.classList.add('lecture');
    const place = Object.assign(document.createElement('p'), {className: 'problem', textContent: text});
    root.replaceChildren(place);
    delete root.dataset.screen;
  },

  table([heads, ...rows]) {
    const table = document.createElement('table');
    table.className = 'rows';
    for (const [i, row] of [heads, ...rows].entries()) {
      const line = table.insertRow();
      for (const text of row) line.appendChild(document.createElement(i ? 'td' : 'th')).textContent = text;
    }
    return table;
  },

  // A figure in the colours of the page around it, as large as its place, with large text. The screen has its title.
  themed(root, picture, {data, layout, frames = []}) {
    const style = getComputedStyle(root);
    const [ink, line] = [style.color, style.getPropertyValue('--line')];
    const size = picture.clientWidth < 640 ? 14 : 20;
    const out = {...layout, title: undefined, width: undefined, height: Math.max(320, picture.clientHeight),
      paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
      font: {...layout.font, color: ink, size, family: 'system-ui, sans-serif'}};
    // The legend has its row above the picture. Where it is narrow the slider stands below the play button, not beside it.
    const narrow = size < 20;
    const above = layout.legend?.y > 1 ? (narrow ? 84 : 64) : 24;
    const below = Math.max(layout.margin?.b ?? 0, 4 * size) + (narrow && layout.sliders ? 56 : 0);
    out.margin = {...layout.margin, t: above, b: below};
    for (const name of Object.keys(out))
      if (/^[xy]axis\d*$/.test(name)) {
        const {tickfont, ...axis} = out[name];
        out[name] = {gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...axis};
      }
    // The play button's ground follows no theme of Plotly's.
    out.updatemenus = layout.updatemenus?.map((menu) => ({...menu, bgcolor: 'rgba(127,127,127,.2)',
      font: {color: ink, size}}));
    out.sliders = layout.sliders?.map((slider) => ({...slider, font: {color: ink, size: size - 4}, bgcolor: line,
      ...(narrow && {x: 0, len: 1, pad: {...slider.pad, t: (slider.pad?.t ?? 0) + 56}})}));
    const larger = data.map((trace) => {
      const {line, marker} = trace;
      const dots = trace.mode?.includes('markers') && typeof marker?.size === 'number';
      return {...trace, ...(narrow && trace.type === 'heatmap' && {showscale: false}), ...(dots && {marker: {...marker, size: Math.round(marker.size * 1.4)}}),
        ...(trace.mode?.includes('lines') && {line: {...line, width: Math.max(3, line?.width ?? 0)}})};
    });
    return {data: larger, layout: out, frames};
  },
};
