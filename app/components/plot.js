// `element`, `props`, `watch` and `trigger` are handed in by gr.HTML.
const target = element.querySelector('.plot');
const isDark = () => document.body.classList.contains('dark');

// The figure comes without colours of its own for text, grid and paper: they follow the page's theme.
const themed = (layout) => {
  const ink = isDark() ? '#e5e7eb' : '#1f2937';
  const grid = isDark() ? '#374151' : '#e5e7eb';
  const out = {...layout, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)'};
  out.font = {...layout.font, color: ink, family: 'system-ui, sans-serif'};
  out.hoverlabel = {font: {family: 'system-ui, sans-serif'}};
  for (const name of Object.keys(out))
    if (/^[xy]axis\d*$/.test(name)) out[name] = {gridcolor: grid, zerolinecolor: grid, linecolor: grid, ...out[name]};
  return out;
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

let wired = false;
let shown = null; // the figure's axes and points, as its meta names them
let drawn = null; // the value that was drawn last: a change of theme draws it again
const draw = async () => {
  if (!window.Plotly) return setTimeout(draw, 50);
  if (!props.value) {
    if (shown !== null) window.Plotly.purge(target);
    target.style.height = '';
    shown = selected = null;
    wired = false;
    return;
  }
  const figure = JSON.parse(props.value);
  const {axes = '', points = '', selected: wanted} = figure.layout.meta || {};
  const layout = themed(figure.layout);
  if (shown?.points !== points) selected = null;
  if (wanted && drawn !== props.value) selected = wanted.length ? new Set(wanted) : null;
  else if (shown?.axes === axes && target.layout?.selections) layout.selections = target.layout.selections;
  select(figure.data);
  target.style.height = `${figure.layout.height}px`; // a resize takes its height from the element, not the layout
  await window.Plotly.react(target, figure.data, shown?.axes === axes ? keepView(layout) : layout,
    {responsive: true, displaylogo: false, modeBarButtonsToRemove: ['autoScale2d']});
  shown = {axes, points};
  drawn = props.value;
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
draw();
watch('value', draw);
new MutationObserver(draw).observe(document.body, {attributes: true, attributeFilter: ['class']});
// A panel drawn in a hidden tab has no width; size it when it comes into view.
new ResizeObserver(() => {
  if (shown !== null && target.offsetWidth && window.Plotly) window.Plotly.Plots.resize(target);
}).observe(element);
