// Which page is shown. The browser decides it, not the server: a click in the first second counts, and a link such as
// ?page=chat&run=ID opens at once. The hidden buttons of the tabs do the rest.
window.studio = {
  pages: [],
  page: null,

  start(pages) {
    this.pages = pages;
    const linked = new URLSearchParams(location.search).get('page');
    if (this.page) return;
    const stored = this.stored('page');
    this.go([linked, stored, 'chat'].find((page) => pages.includes(page)), {history: 'replaceState'});
  },

  go(page, {history: change = 'pushState'} = {}) {
    const button = [...document.querySelectorAll('#tabs button')].find((tab) => tab.dataset.tabId === page);
    if (!button) return setTimeout(() => this.go(page, {history: change}), 50); // the tabs are not there yet
    if (page !== this.page) this.link(this.page ? {page, token: null} : {page}, change); // a token is of one page's text
    button.click();
    this.shown(page);
  },

  // A page is open, whoever opened it.
  shown(page) {
    if (page === this.page) return;
    this.page = page;
    if (new URLSearchParams(location.search).get('page') !== page) this.link({page}, 'pushState');
    document.body.classList.remove('steps-open');
    document.body.dataset.page = page;
    this.store('page', page);
    window.scrollTo(0, 0);
    document.dispatchEvent(new CustomEvent('page-shown', {detail: page}));
  },

  link(changes, change = 'replaceState') {
    const address = new URL(location);
    for (const [name, value] of Object.entries(changes))
      if (value === null || value === '') address.searchParams.delete(name);
      else address.searchParams.set(name, value);
    if (address.href !== location.href) history[change](null, '', address);
  },

  // A short message, such as on a link that leads nowhere.
  notice(text) {
    let place = document.getElementById('notice');
    if (!place) {
      place = Object.assign(document.createElement('div'), {id: 'notice'});
      place.setAttribute('role', 'status');
      document.body.append(place);
    }
    place.textContent = text;
    clearTimeout(this.noticeDue);
    this.noticeDue = setTimeout(() => (place.textContent = ''), 8000);
  },

  stored(name) {
    try { return localStorage.getItem(`hydralora-${name}`); } catch { return null; }
  },

  store(name, value) {
    try { localStorage.setItem(`hydralora-${name}`, value); } catch { /* a private window: nothing is kept */ }
  },

  // Plotly is most of the page's weight: it is loaded when a figure is first needed.
  plotly() {
    this.loading ??= new Promise((done, failed) => {
      const script = document.createElement('script');
      script.src = 'studio/files/plotly.js';
      script.onload = () => done(window.Plotly);
      script.onerror = () => failed(new Error('The script that draws figures can not be loaded. Reload the page.'));
      document.head.append(script);
    });
    return this.loading;
  },

  theme(dark) {
    document.body.classList.toggle('dark', dark);
    this.store('theme', dark ? 'dark' : 'light');
  },
};
window.addEventListener('popstate', () => {
  const page = new URLSearchParams(location.search).get('page');
  if (page && page !== window.studio.page) window.studio.go(page, {history: 'replaceState'});
});
document.addEventListener('DOMContentLoaded', () => {
  const theme = window.studio.stored('theme');
  if (theme) window.studio.theme(theme === 'dark');
});
