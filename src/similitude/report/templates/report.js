(() => {
  "use strict";
  const read = (id) => {
    const element = document.getElementById(id);
    return element ? JSON.parse(element.textContent) : null;
  };
  const figures = read("figures") || {};
  const points = read("points");
  const plots = [...document.querySelectorAll(".plot[data-figure]")];

  // Figures name colors as var(--x): look them up, so that they follow the theme.
  const themed = (value, style) => {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.length && typeof value[0] !== "object" ? value : value.map((v) => themed(v, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, v]) => [key, themed(v, style)]));
    }
    return value;
  };
  const config = (plot) => ({
    responsive: true,
    displaylogo: false,
    displayModeBar: plot.dataset.figure === "map" ? "hover" : false,
    modeBarButtons: [["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
    // Off by plotly's own switch too: by default it offers to send the data to its makers' server.
    showSendToCloud: false,
    plotlyServerURL: "",
    scrollZoom: false,
  });
  const draw = (plot) => {
    const figure = themed(figures[plot.dataset.figure], getComputedStyle(document.documentElement));
    if (plot.dataset.figure === "map" && plot.clientWidth < 600) {
      for (const trace of figure.data) trace.marker.size *= 0.7;
      figure.layout.annotations = [];
    }
    return Plotly.react(plot, figure.data, figure.layout, config(plot));
  };
  const drawAll = () => Promise.all(plots.map(draw));

  const ready = drawAll().then(() => {
    if (figures.map) exploreMap();
    document.documentElement.dataset.ready = "true";
  });
  const redraw = () => ready.then(drawAll).then(() => document.dispatchEvent(new Event("themed")));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  for (const details of document.querySelectorAll("details")) {
    // A plot drawn inside a closed box has no width.
    details.addEventListener("toggle", () => {
      for (const plot of details.querySelectorAll(".plot")) Plotly.Plots.resize(plot);
    });
  }

  // Paper is white and cannot be opened: print light, with every box open.
  let closed = [];
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const details of closed) details.open = true;
    redraw();
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    for (const details of closed) details.open = false;
    redraw();
  });

  // Sounds stand one after the other in a few files, each of which is decoded at its first click.
  let context = null;
  let source = null;
  const tracks = {};
  const decoded = (track) => {
    const bytes = Uint8Array.from(atob(points.tracks[track]), (letter) => letter.charCodeAt(0));
    return context.decodeAudioData(bytes.buffer);
  };
  const play = async (element) => {
    const [track, begin, end] = element.dataset.heard.split(" ").map(Number);
    context ??= new AudioContext();
    tracks[track] ??= decoded(track);
    const buffer = await tracks[track];
    source?.stop();
    source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    source.addEventListener("ended", () => delete element.dataset.playing);
    source.start(0, begin, end - begin);
    element.dataset.playing = "";
  };
  for (const element of document.querySelectorAll("[data-heard]")) {
    element.addEventListener("click", () => play(element));
    element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      play(element);
    });
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.previousElementSibling);
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }

  function exploreMap() {
    const plot = document.querySelector('[data-figure="map"]');
    const frame = plot.parentElement;
    const ring = frame.querySelector(".ring");
    const tip = document.querySelector(".tip");
    const pixelated = document.querySelector(".thumb.pixelated") !== null;
    const place = [];
    figures.map.data.forEach((trace, number) => {
      trace.customdata.forEach((image, i) => {
        place[image] = { x: trace.x[i], y: trace.y[i], trace: number };
      });
    });
    let current = null;
    let lit = null;

    const thumb = (image, size) => {
      const element = document.createElement("span");
      element.className = `thumb ${size}${pixelated ? " pixelated" : ""}`;
      const share = (cell, count) => (100 * cell) / Math.max(1, count - 1);
      const x = share(image % points.columns, points.columns);
      const y = share(Math.floor(image / points.columns), points.rows);
      element.style.backgroundPosition = `${x}% ${y}%`;
      return element;
    };
    const text = (tag, content) => {
      const element = document.createElement(tag);
      element.textContent = content;
      return element;
    };
    const pixel = (image) => {
      const { xaxis, yaxis } = plot._fullLayout;
      return {
        x: xaxis._offset + xaxis.d2p(place[image].x),
        y: yaxis._offset + yaxis.d2p(place[image].y),
      };
    };
    const show = (image) => {
      current = image;
      const at = pixel(image);
      const box = plot.getBoundingClientRect();
      ring.hidden = false;
      ring.style.left = `${at.x}px`;
      ring.style.top = `${at.y}px`;
      const head = document.createElement("div");
      head.className = "head";
      const words = document.createElement("div");
      if (points.classes) words.append(text("b", points.classes[image]));
      words.append(text("small", points.names[image]));
      head.append(thumb(image, "huge"), words);
      const strip = document.createElement("div");
      strip.className = "strip";
      strip.append(...points.neighbors[image].map((other) => thumb(other, "tiny")));
      tip.replaceChildren(head, strip, text("small", "nearest neighbors"));
      tip.hidden = false;
      const width = tip.offsetWidth;
      const height = tip.offsetHeight;
      const x = box.left + at.x;
      const y = box.top + at.y;
      const left = x + 18 + width < innerWidth ? x + 18 : x - 18 - width;
      const top = y + 18 + height < innerHeight ? y + 18 : y - 18 - height;
      tip.style.left = `${Math.min(Math.max(8, left), Math.max(8, innerWidth - width - 8))}px`;
      tip.style.top = `${Math.max(8, top)}px`;
    };
    const hide = () => {
      ring.hidden = true;
      tip.hidden = true;
    };

    plot.on("plotly_hover", (event) => show(event.points[0].customdata));
    plot.on("plotly_click", (event) => show(event.points[0].customdata));
    plot.on("plotly_unhover", hide);
    plot.on("plotly_relayout", hide);
    addEventListener("scroll", hide, { passive: true });
    frame.addEventListener("blur", hide);
    frame.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      if (current === null) return show(0);
      // The nearest dot inside the quadrant that the key points to.
      const from = pixel(current);
      let best = current;
      let least = Infinity;
      place.forEach((_, image) => {
        const to = pixel(image);
        const along = (to.x - from.x) * step[0] + (to.y - from.y) * step[1];
        const across = Math.abs((to.x - from.x) * step[1]) + Math.abs((to.y - from.y) * step[0]);
        const length = Math.hypot(along, across);
        if (along > 0.5 && across <= along && length < least) [best, least] = [image, length];
      });
      show(best);
    });

    const buttons = [...document.querySelectorAll("[data-trace]")];
    const select = document.querySelector("[data-classes]");
    const light = () => {
      const opacity = figures.map.data.map((_, i) => (lit === null || i === lit ? 0.9 : 0.08));
      Plotly.restyle(plot, { "marker.opacity": opacity });
      for (const button of buttons) button.setAttribute("aria-pressed", String(Number(button.dataset.trace) === lit));
    };
    for (const button of buttons) {
      button.addEventListener("click", () => {
        const chosen = Number(button.dataset.trace);
        lit = lit === chosen ? null : chosen;
        light();
      });
    }
    if (select) {
      select.addEventListener("change", () => {
        lit = select.value === "" ? null : Number(select.value);
        light();
      });
    }
    document.addEventListener("themed", () => {
      hide();
      if (lit !== null) light();
    });
  }
})();
