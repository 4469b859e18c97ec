(() => {
  'use strict';
  const svg = document.currentScript.closest('svg');
  const NS = svg.namespaceURI;
  const COLUMN = 7.2, PAD = 3, HINT =
    'click or Enter: zoom   arrows: move   / or Ctrl-F: search   Esc or background: back';
  const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;

  // Frames come parents first; y says how deep.
  const way = [];
  const frames = [...svg.querySelectorAll('.frame')].map(g => {
    const rect = g.querySelector('rect'), title = g.querySelector('title').textContent;
    const number = key => Number(rect.getAttribute(key));
    const frame = {
      g, rect, title, text: g.querySelector('text'), inner: [], isShown: true,
      // The two figures behind the name have no comma.
      name: title.replace(/(, [^,]*){2}$/, ''),
      x: number('x'), y: number('y'), w: number('width'),
    };
    while (way.length > 0 && way.at(-1).y <= frame.y) way.pop();
    frame.outer = way.at(-1);
    if (frame.outer) frame.outer.inner.push(frame);
    way.push(frame);
    g.setAttribute('tabindex', frame.outer ? -1 : 0);
    g.setAttribute('role', 'button');
    g.classList.add('live');
    return frame;
  });
  const root = frames[0];
  const of = new Map(frames.map(frame => [frame.g, frame]));
  const at = target => of.get(target.closest('.frame'));

  const cut = (name, columns) => {
    const widths = [...name].map(c => WIDE.test(c) ? 2 : 1);
    if (widths.reduce((sum, w) => sum + w, 0) <= columns) return name;
    let used = 1, kept = 0;
    while ((used += widths[kept]) <= columns) kept++;
    return [...name].slice(0, kept).join('') + '\u2026';
  };

  const place = (frame, x, w) => {
    frame.rect.setAttribute('x', x.toFixed(2));
    frame.rect.setAttribute('width', w.toFixed(2));
    const columns = Math.floor((w - 2 * PAD) / COLUMN);
    if (!frame.text) {
      frame.text = document.createElementNS(NS, 'text');
      frame.text.setAttribute('y', frame.y + 13);
      frame.g.append(frame.text);
    }
    frame.text.setAttribute('x', (x + PAD).toFixed(2));
    frame.text.textContent = columns < 3 ? '' : cut(frame.name, columns);
  };

  const zoom = to => {
    const outer = new Set(), inner = new Set([to]), by = root.w / to.w;
    for (let frame = to.outer; frame; frame = frame.outer) outer.add(frame);
    for (const frame of frames) {
      if (inner.has(frame.outer)) inner.add(frame);
      frame.isShown = outer.has(frame) || inner.has(frame);
      frame.g.style.display = frame.isShown ? '' : 'none';
      frame.g.classList.toggle('outer', outer.has(frame));
      if (outer.has(frame)) place(frame, root.x, root.w);
      else if (frame.isShown) place(frame, root.x + (frame.x - to.x) * by, frame.w * by);
    }
  };

  const line = (x, y, anchor) => {
    const text = document.createElementNS(NS, 'text');
    text.setAttribute('x', x);
    text.setAttribute('y', y);
    text.setAttribute('text-anchor', anchor);
    text.setAttribute('class', 'faint');
    svg.append(text);
    return text;
  };
  const right = root.x + root.w;
  const info = line(root.x, root.y + 34, 'start');
  const found = line(right, 44, 'end');
  found.setAttribute('aria-live', 'polite');
  const say = frame => {
    info.textContent = cut(frame ? frame.title : HINT, Math.floor(root.w / COLUMN));
  };

  const corner = document.createElementNS(NS, 'foreignObject');
  for (const [key, value] of Object.entries({ x: right - 230, y: 8, width: 230, height: 22 }))
    corner.setAttribute(key, value);
  const box = document.createElementNS('http://www.w3.org/1999/xhtml', 'input');
  box.setAttribute('type', 'search');
  box.setAttribute('placeholder', 'search ( / or Ctrl-F )');
  box.setAttribute('aria-label', 'search names');
  corner.append(box);
  svg.append(corner);

  const search = () => {
    const term = box.value.trim().toLowerCase();
    let sum = 0;
    for (const frame of frames) {
      const hit = term !== '' && frame.name.toLowerCase().includes(term);
      const counted = Boolean(frame.outer && frame.outer.counted);
      frame.g.classList.toggle('hit', hit);
      // What stands on a match is part of it.
      if (hit && !counted) sum += frame.w;
      frame.counted = hit || counted;
    }
    svg.classList.toggle('searching', term !== '');
    found.textContent = term === '' ? '' : (100 * sum / root.w).toFixed(1) + ' % of the time matches';
  };

  const reset = () => {
    box.value = '';
    search();
    zoom(root);
  };

  const focus = frame => {
    if (!frame) return;
    for (const other of frames) other.g.setAttribute('tabindex', other === frame ? 0 : -1);
    frame.g.focus();
  };
  const beside = (frame, step) => {
    const row = frame.outer ? frame.outer.inner.filter(other => other.isShown) : [];
    return row[row.indexOf(frame) + step];
  };
  const keys = {
    Enter: zoom,
    ' ': zoom,
    ArrowUp: frame => focus(frame.inner.find(inner => inner.isShown)),
    ArrowDown: frame => focus(frame.outer),
    ArrowLeft: frame => focus(beside(frame, -1)),
    ArrowRight: frame => focus(beside(frame, 1)),
  };

  svg.addEventListener('click', event => {
    const frame = at(event.target);
    if (frame) {
      zoom(frame);
      focus(frame);
    } else if (!corner.contains(event.target)) reset();
  });
  svg.addEventListener('mouseover', event => say(at(event.target)));
  svg.addEventListener('focusin', event => say(at(event.target)));
  svg.addEventListener('keydown', event => {
    const frame = at(event.target);
    const key = frame && !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key];
    if (!key) return;
    key(frame);
    event.preventDefault();
  });
  window.addEventListener('keydown', event => {
    const isTyping = event.target.closest && event.target.closest('input, textarea');
    const isFind = (event.ctrlKey || event.metaKey) && event.key === 'f'
      || event.key === '/' && !isTyping;
    if (event.key === 'Escape') reset();
    // A second Ctrl-F is the browser's own.
    else if (isFind && document.activeElement !== box) {
      box.focus();
      event.preventDefault();
    }
  });
  box.addEventListener('input', search);
  say();
})();
