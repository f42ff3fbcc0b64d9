// What the book shows and JupyterLab would not: glued numbers and citations in the text, captions below figures.
// jupyterlab-myst renders the rest. It leaves what it does not know as a <span> of the bare key, which is filled here
// from the outputs of the open notebook: from the stored ones at first, from new ones as soon as a cell has run.
(() => {
  const CITATIONS = {}; // key -> author and year; filled by aimfair.book.lab
  const filled = new WeakMap(); // span -> the key and title that it was rendered with, and what it shows now

  function facts(notebook) {
    const values = new Map(), figures = new Map();
    for (const cell of notebook.widgets) {
      const figure = cell.model.getMetadata("mystnb")?.figure;
      if (figure) figures.set(figure.name, { number: figures.size + 1, caption: figure.caption, cell });
      for (let i = 0; i < (cell.model.outputs?.length ?? 0); i++) {
        const output = cell.model.outputs.get(i).toJSON();
        const name = output.metadata?.scrapbook?.name;
        const text = output.data?.["application/papermill.record/text/plain"];
        if (name && text) values.set(name, [text].flat().join(""));
      }
    }
    return { values, figures };
  }

  // Python's format of a number: sign, thousands, digits.
  function formatted(text, format) {
    const [, plus, comma, digits, kind] = /^(\+?)(,?)(?:\.(\d+))?([a-z%]?)$/.exec(format) ?? [];
    const number = Number(text);
    if (kind === undefined || kind === "s" || Number.isNaN(number)) return text.replace(/^(['"])(.*)\1$/s, "$2");
    const shown = digits === undefined ? String(number) : number.toFixed(digits);
    const [whole, part] = shown.split(".");
    const grouped = comma ? whole.replace(/\B(?=(\d{3})+$)/g, ",") : whole;
    return (plus && number >= 0 ? "+" : "") + grouped + (part ? `.${part}` : "");
  }

  function said(key, title, { values, figures }) {
    if (title === "Citation Not Found") return CITATIONS[key];
    if (title === "Cross Reference Not Found") return figures.has(key) ? `Figure ${figures.get(key).number}` : undefined;
    const [, name, format] = /^([^:]+):?(.*)$/s.exec(key) ?? [];
    return values.has(name) ? formatted(values.get(name), format) : undefined;
  }

  function fill(notebook) {
    const known = facts(notebook);
    for (const span of notebook.node.querySelectorAll(".myst span")) {
      const text = [...span.childNodes].find((node) => node.nodeType === Node.TEXT_NODE);
      if (!text || (!filled.has(span) && span.attributes.length && !/Not Found$/.test(span.title))) continue;
      let was = filled.get(span);
      if (was?.shown !== text.nodeValue) was = { key: text.nodeValue, title: span.title }; // as it was rendered
      const shown = said(was.key, was.title, known);
      if (shown === undefined || shown === text.nodeValue) continue;
      filled.set(span, { ...was, shown });
      text.nodeValue = shown; // the nodes stay, because React owns them
      if (was.title) span.removeAttribute("class");
      for (const icon of span.children) icon.style.display = "none";
      span.title = was.key;
    }
    for (const { number, caption, cell } of known.figures.values()) {
      const below = cell.node.querySelector(".jp-Cell-outputWrapper");
      if (!below || cell.node.querySelector("figcaption")) continue;
      const line = document.createElement("figcaption");
      line.textContent = `Figure ${number}: ${caption}`;
      line.style.padding = "0 1em 1em 7em";
      below.after(line);
    }
  }

  const plugin = {
    id: "aimfair-lab:plugin",
    autoStart: true,
    activate: (app) => {
      let waiting;
      const soon = () => {
        waiting ??= setTimeout(() => {
          waiting = undefined;
          for (const panel of app.shell.widgets("main")) if (panel.content?.model?.cells) fill(panel.content);
        }, 200);
      };
      new MutationObserver(soon).observe(app.shell.node, { childList: true, subtree: true, characterData: true });
    },
  };
  const container = { init: () => {}, get: async () => () => ({ __esModule: true, default: [plugin] }) };
  (window._JUPYTERLAB ??= {})["aimfair-lab"] = container;
})();
