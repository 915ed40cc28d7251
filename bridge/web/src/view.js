// Draws runs; strings come from providers and tasks, so they are set as text and never as markup.

import { isFinal } from "./runs.js";
import { factsOf, messageOf, statusWord, timeOf, titleOf } from "./words.js";

const CONNECTIONS = {
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Connection lost, reconnecting…",
  offline: "You are offline",
};

export class View {
  #document;
  #cards = new Map();

  constructor(document) {
    this.#document = document;
  }

  showConnection(state) {
    const line = this.#get("connection");
    line.dataset.state = state;
    setText(line, CONNECTIONS[state]);
  }

  showProblem(text) {
    const line = this.#get("problem");
    line.hidden = !text;
    setText(line, text ?? "");
  }

  showRuns(runs) {
    const list = this.#get("runs");
    const top = runs.topLevel();
    this.#get("no-runs").hidden = top.length > 0;
    top.forEach((run, place) => {
      const card = this.#cards.get(run.run_id) ?? this.#newCard(run, place);
      if (list.children[place] !== card) list.insertBefore(card, list.children[place] ?? null);
      card.toggleAttribute("data-past", place > 0 && isFinal(run.status));
      this.#draw(card, run);
      this.#drawLines(card, runs.linesOf(run.run_id));
    });
  }

  #newCard(run, place) {
    const card = this.#get("run-template").content.firstElementChild.cloneNode(true);
    card.dataset.run = run.run_id;
    if (place === 0) {
      for (const older of this.#cards.values()) older.querySelector("details").open = false;
      card.querySelector("details").open = true;
    }
    this.#cards.set(run.run_id, card);
    return card;
  }

  #draw(card, run) {
    const [message, title] = [messageOf(run), titleOf(run)];
    this.#announce(card, run, title, message);
    card.dataset.status = run.status;
    const part = (name) => card.querySelector(`.${name}`);
    setText(part("title"), title);
    setText(part("badge"), statusWord(run.status));
    setText(part("message"), message);
    setText(part("percent"), `${run.progress} %`);
    setText(part("facts"), factsOf(run, Date.now()));
    setText(part("error"), run.error_message ?? run.error_code ?? "");
    part("error").hidden = part("error").textContent === "";
    const bar = part("bar");
    bar.setAttribute("aria-label", title);
    bar.setAttribute("aria-valuenow", run.progress);
    bar.setAttribute("aria-valuetext", `${statusWord(run.status)}, ${run.progress} percent, ${message}`);
    part("fill").style.setProperty("--share", run.progress / 100);
  }

  // Steps and states only: a screen reader that reads every percent, or every place in a line, is no help.
  #announce(card, run, title, message) {
    const isAtRest = isFinal(run.status) || run.status === "queued" || run.status === "waiting";
    const said = isAtRest ? statusWord(run.status) : run.step ?? message;
    if (card.dataset.said === said) return;
    const isFirstSight = card.dataset.said === undefined;
    card.dataset.said = said;
    if (!(isFirstSight && isFinal(run.status))) setText(this.#get("announcer"), `${title}: ${said}`);
  }

  #drawLines(card, lines) {
    const log = card.querySelector(".log");
    const last = lines.at(-1);
    const drawn = `${lines.length} ${last?.at} ${last?.line}`;
    if (log.dataset.drawn === drawn) return;
    log.dataset.drawn = drawn;
    log.hidden = lines.length === 0;
    setText(log.querySelector("summary"), lines.length === 1 ? "1 log line" : `${lines.length} log lines`);
    const box = log.querySelector(".lines");
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 8;
    box.firstElementChild.replaceChildren(...lines.map((line) => this.#line(line)));
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  }

  #line(line) {
    const item = this.#document.createElement("li");
    item.dataset.level = line.level;
    const [time, text] = [this.#document.createElement("time"), this.#document.createElement("span")];
    time.dateTime = line.at;
    time.textContent = timeOf(line);
    text.textContent = line.message;
    item.append(time, text);
    return item;
  }

  #get(id) {
    return this.#document.getElementById(id);
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
