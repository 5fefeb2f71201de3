// The page's one script: tables that sort, generations that can be searched.
// It is allowed by its hash and nothing else is; without it everything is still there to read.
'use strict';
(() => {
  const all = (root, css) => Array.from(root.querySelectorAll(css));
  const numeric = (cell) => {
    const text = cell.textContent.trim().replace(/,/g, '').replace(/\u2212/g, '-');
    const found = /^-?\d+(\.\d+)?(e-?\d+)?/.exec(text);
    return found ? Number(found[0]) : null;
  };
  const compare = (a, b, sign) => {
    if (a.number !== null && b.number !== null) return sign * (a.number - b.number);
    if (a.missing !== b.missing) return a.missing ? 1 : -1;
    return sign * a.text.localeCompare(b.text);
  };
  const sort = (table, place, header) => {
    const down = header.getAttribute('aria-sort') === 'ascending';
    const body = table.tBodies[0];
    const rows = Array.from(body.rows).map((row) => {
      const cell = row.cells[place];
      const text = cell.textContent.trim();
      return {row, text, number: numeric(cell), missing: text.startsWith('\u2013')};
    });
    rows.sort((a, b) => compare(a, b, down ? -1 : 1));
    rows.forEach((each) => body.append(each.row));
    all(table, 'thead th').forEach((other) => other.removeAttribute('aria-sort'));
    header.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  };
  all(document, 'table').forEach((table) => {
    if (table.closest('.fixed') || table.tBodies[0].rows.length < 2) return;
    all(table, 'thead th').forEach((header, place) => {
      if (!header.textContent.trim()) return;
      const button = document.createElement('button');
      button.type = 'button';
      button.className = 'sort';
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener('click', () => sort(table, place, header));
    });
  });

  const find = document.querySelector('form.find');
  if (!find) return;
  const part = find.parentElement;
  const status = find.querySelector('output');
  const closed = (node, within) => {
    const shut = node.closest('details:not([open])');
    return shut !== null && within.contains(shut);
  };
  const apply = () => {
    const wanted = find.elements.namedItem('text').value.trim().toLowerCase();
    const verdict = find.elements.namedItem('verdict').value;
    const shown = new Set(all(find, 'input[type=checkbox]').filter((box) => box.checked)
      .map((box) => box.value));
    let hits = 0, unseen = 0;
    all(part, 'article').forEach((article) => {
      const matches = (node) => node !== null && node.textContent.toLowerCase().includes(wanted);
      const prompt = article.querySelector('.prompt .text');
      const promptMatches = wanted === '' || (matches(prompt) && !closed(prompt, part));
      let any = false;
      all(article, '.side').forEach((side) => {
        const text = side.querySelector('.text');
        const fits = shown.has(side.dataset.method) &&
          (verdict === '' || verdict === side.dataset.verdict);
        const covered = closed(text, part);
        const hit = fits && (promptMatches || (matches(text) && !covered));
        if (fits && !hit && matches(text)) unseen += 1;
        side.hidden = !hit;
        any = any || hit;
        hits += hit ? 1 : 0;
      });
      article.hidden = !any;
    });
    all(part, 'details.group').forEach((group) => {
      group.hidden = all(group, 'article').every((article) => article.hidden);
    });
    status.textContent = hits + (hits === 1 ? ' completion' : ' completions') +
      (unseen ? ', ' + unseen + ' more in hidden text' : '');
  };
  find.hidden = false;
  find.addEventListener('submit', (event) => event.preventDefault());
  find.addEventListener('input', apply);
  part.addEventListener('toggle', apply, true);
  find.querySelector('button.reveal').addEventListener('click', () => {
    all(part, 'details').forEach((each) => { each.open = true; });
    apply();
  });
  apply();
})();
