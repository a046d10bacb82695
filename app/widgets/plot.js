// `element`, `props`, `watch` and `trigger` are handed in by gr.HTML.
const target = element.querySelector('.plot');
const fills = target.classList.contains('fills'); // its height is the panel's, not the figure's

const isDark = () => document.body.classList.contains('dark');

// The figure comes without colours of its own for text, grid and paper: they follow the page's theme.
const themed = (layout) => {
  const ink = isDark() ? '#e5e7eb' : '#1f2937';
  const grid = isDark() ? '#374151' : '#e5e7eb';
  const out = {...layout, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)'};
  out.font = {...layout.font, color: ink, family: 'system-ui, sans-serif'};
  // Its tools stand at the right, on no ground of their own: the title is at the left.
  out.modebar = {orientation: 'v', bgcolor: 'rgba(0,0,0,0)', color: isDark() ? '#9ca3af' : '#6b7280', activecolor: ink};
  out.hoverlabel = {font: {family: 'system-ui, sans-serif'}};
  for (const name of Object.keys(out))
    if (/^[xy]axis\d*$/.test(name)) out[name] = {gridcolor: grid, zerolinecolor: grid, linecolor: grid, ...out[name]};
  return out;
};

// Without WebGL many points are drawn as SVG: slower, but seen.
let canWebGL = null;
const drawable = (data) => {
  if (!data.some((trace) => trace.type === 'scattergl')) return data;
  canWebGL ??= Boolean(document.createElement('canvas').getContext('webgl'));
  return canWebGL ? data : data.map((trace) => (trace.type === 'scattergl' ? {...trace, type: 'scatter'} : trace));
};

// Zoom and selection are the reader's: an update of the data keeps them.
const keepView = (layout) => {
  const now = target._fullLayout;
  if (!now) return layout;
  for (const name of Object.keys(layout))
    if (/^[xy]axis\d*$/.test(name) && now[name] && now[name].autorange === false && !layout[name].fixedrange)
      layout[name] = {...layout[name], range: now[name].range.slice(), autorange: false};
  return layout;
};

// The points with these customdata are selected; null is no selection.
let selected = null;
const select = (data) => {
  for (const trace of data)
    if (selected && Array.isArray(trace.customdata))
      trace.selectedpoints = trace.customdata.flatMap((id, i) => (selected.has(id) ? [i] : []));
};

const save = (blob, suffix) => {
  const name = (target.layout.title?.text || 'figure').replace(/[^\w.-]+/g, '-').toLowerCase();
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = `${name}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};

// What stands at an axis, where its ticks are named: without marks, as text.
const tick = (axis, value) => {
  const at = axis?.tickmode === 'array' ? axis.tickvals.indexOf(value) : -1;
  return at < 0 ? value : axis.ticktext[at].replace(/<[^>]*>/g, '').replaceAll('&lt;', '<').replaceAll('&amp;', '&').trim();
};

// One row a point of every trace; a heatmap has one a cell.
const table = () => {
  const rows = [['series', 'x', 'y', 'z', 'label']];
  for (const trace of target.calcdata.map((points) => points[0].trace)) {
    const at = (values, i) => (values === undefined ? '' : Array.isArray(values) || ArrayBuffer.isView(values) ? values[i] : values);
    if (trace.type === 'heatmap')
      trace.z.forEach((row, i) => Array.from(row).forEach((z, j) =>
        rows.push([trace.name, at(trace._input.x, j) ?? j, tick(target._fullLayout.yaxis, at(trace._input.y, i) ?? i), z, ''])));
    else
      for (let i = 0; i < trace._length; i++)
        rows.push([trace.name, at(trace.x, i), at(trace.y, i), trace.z ? at(trace.z, i) : '', at(trace.text, i) ?? '']);
  }
  return rows;
};

// A cell that begins like a formula would be run by a spreadsheet.
const cell = (value) => {
  const text = value === null || value === undefined ? '' : String(value);
  const safe = typeof value === 'string' && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};

const page = async () => {
  const script = await (await fetch('studio/files/plotly.js')).text();
  const {data, layout, frames = []} = JSON.parse(props.value);
  const json = JSON.stringify({data, layout, frames, config: {responsive: true}}).replaceAll('<', '\\u003c');
  const close = '</' + 'script>';
  const caption = document.createElement('p');
  caption.textContent = document.getElementById(target.dataset.caption)?.querySelector('p')?.textContent ?? '';
  caption.style = 'font: 15px/1.5 system-ui, sans-serif; max-width: 96ch';
  return `<!doctype html><meta charset="utf-8"><title>Figure</title><script>${script}${close}` +
    `<div id="figure"></div>${caption.outerHTML}<script>Plotly.newPlot('figure', ${json})${close}`;
};

const shownRows = 200;
const listRows = (rows) => {
  const node = document.createElement('table');
  for (const [i, row] of rows.slice(0, shownRows + 1).entries()) {
    const line = node.insertRow();
    for (const value of row) {
      const place = document.createElement(i ? 'td' : 'th');
      place.textContent = typeof value === 'number' ? Number(value.toPrecision(5)) : (value ?? '');
      line.append(place);
    }
  }
  if (rows.length > shownRows + 1) node.createCaption().textContent = `The first ${shownRows} of ${rows.length - 1} points`;
  return node;
};

const exports = element.querySelector('.exports');
const image = (format) => window.Plotly.downloadImage(target, {format, filename: 'figure', width: 1200, height: target.layout.height});
const asFile = {
  png: () => image('png'),
  svg: () => image('svg'),
  html: async () => save(new Blob([await page()], {type: 'text/html'}), 'html'),
  csv: () => save(new Blob([table().map((row) => row.map(cell).join(',')).join('\r\n')], {type: 'text/csv'}), 'csv'),
};
exports.addEventListener('click', (event) => asFile[event.target.dataset.as]?.());
exports.querySelector('.as-table').addEventListener('toggle', (event) => {
  event.target.querySelector('div').replaceChildren(...(event.target.open ? [listRows(table())] : []));
});

const AWAITED = 'awaited';
let wired = false;
let shown = null; // the figure's axes and points, as its meta names them
let painted = null; // the value and the theme of what is shown
const paint = async () => {
  const wanted = props.value;
  const dark = isDark();
  if (painted?.value === wanted && painted.dark === dark) return;
  target.classList.toggle('awaited', wanted === AWAITED);
  if (!wanted || wanted === AWAITED) {
    if (shown !== null) window.Plotly.purge(target);
    target.style.height = '';
    shown = selected = null;
    wired = false;
    exports.hidden = true;
    painted = {value: wanted, dark};
    return;
  }
  if (!target.offsetWidth) return; // it is not on the screen; it is drawn once it is
  await window.studio.plotly();
  if (wanted !== props.value) return; // another figure has come meanwhile
  const figure = JSON.parse(wanted);
  figure.data = drawable(figure.data);
  const {axes = '', points = '', selected: chosen} = figure.layout.meta || {};
  const layout = themed(figure.layout);
  if (shown?.points !== points) selected = null;
  if (chosen && painted?.value !== wanted) selected = chosen.length ? new Set(chosen) : null;
  else if (shown?.axes === axes && target.layout?.selections) layout.selections = target.layout.selections;
  select(figure.data);
  if (fills) delete layout.height;
  else target.style.height = `${figure.layout.height}px`; // a resize takes its height from the element, not the layout
  await window.Plotly.react(target, {
    data: figure.data,
    layout: shown?.axes === axes ? keepView(layout) : layout,
    frames: figure.frames || [],
    config: {responsive: true, displaylogo: false, modeBarButtonsToRemove: ['autoScale2d']},
  });
  exports.hidden = false;
  const open = exports.querySelector('.as-table');
  if (open.open) open.querySelector('div').replaceChildren(listRows(table()));
  shown = {axes, points};
  painted = {value: wanted, dark};
  if (wired) return;
  wired = true;
  target.on('plotly_selected', (e) => {
    if (!e) return;
    const ids = e.points.map((p) => p.customdata).filter((id) => id !== undefined);
    selected = ids.length ? new Set(ids) : null;
    trigger('lasso', {ids});
  });
  target.on('plotly_deselect', () => {
    selected = null;
    trigger('lasso', {ids: []});
  });
  target.on('plotly_click', (e) => {
    if (e.points[0].customdata !== undefined) trigger('pick', {id: e.points[0].customdata});
  });
};
// One after another: Plotly fails where a figure is removed or resized while it is still being drawn.
let last = Promise.resolve();
const then = (work) => { last = last.catch(() => {}).then(work); };
const draw = () => then(paint);
draw();
watch('value', draw);
new MutationObserver(draw).observe(document.body, {attributes: true, attributeFilter: ['class']});
new ResizeObserver(() => then(async () => {
  await paint();
  if (shown !== null && target.offsetWidth) await window.Plotly.Plots.resize(target);
})).observe(element);
