// The dialog of every action: what it is about, what follows, why.

import { ChakraUI, React, ask, h } from "./host.js";
import { many, seconds } from "./parts.js";

const { Alert, Button, Dialog, Field, Input, List, Portal, Stack, Text, Textarea } = ChakraUI;
const { useEffect, useRef, useState } = React;

const FIELDS = {
  "seconds?": { label: "For how long", hint: "90s, 30m, 2h, 1d or 1h30m; empty: until it is resumed", name: "seconds", isDuration: true },
  number: { label: "Workloads at a time", hint: "1 or more", name: "number", isNumber: true },
  "is_now?": { label: "End its tasks at once", name: "is_now", isFlag: true },
  queue: { label: "Queue", hint: "its name, as tasks have it", name: "queue" },
};
const NOUNS = { queues: "queue", workers: "worker", "dead-letters": "dead letter" };
const SHOWN_TARGETS = 8;

// What was typed, as the API wants it; throws an Error with what is wrong.
function values(action, typed) {
  const found = {};
  for (const field of action.asks.map((name) => FIELDS[name])) {
    if (field.isFlag) {
      found[field.name] = Boolean(typed[field.name]);
      continue;
    }
    const text = (typed[field.name] ?? "").trim();
    if (field.isDuration && !text) continue;
    const value = field.isDuration ? seconds(text) : field.isNumber ? Number(text) : text;
    if (!text || Number.isNaN(value)) throw new Error(`${field.label}: ${field.hint}`);
    found[field.name] = value;
  }
  return found;
}

export function ActionDialog({ action, targets, filter, title, onClose, onDone }) {
  const [typed, setTyped] = useState({});
  const [trial, setTrial] = useState(null);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const first = useRef(null);
  const what = targets.length ? many(targets.length, NOUNS[action.table]) : `all ${NOUNS[action.table]}s${Object.keys(filter).length ? " of the filter" : ""}`;
  const about = { targets, ...(targets.length ? {} : filter) };
  const path = `orders/${action.command.replace(" ", "/")}`;

  useEffect(() => {
    if (!action.has_trial) return undefined;
    const abort = new AbortController();
    ask(path, { body: { ...about, is_trial: true }, signal: abort.signal })
      .then(setTrial, (failure) => failure.name === "AbortError" || setError(failure.message));
    return () => abort.abort();
  }, []);

  const confirm = async (event) => {
    event.preventDefault();
    setError(null);
    let body;
    try {
      body = { ...about, ...values(action, typed), reason: (typed.reason ?? "").trim() };
    } catch (failure) {
      setError(failure.message);
      return;
    }
    setBusy(true);
    try {
      onDone(action, await ask(path, { body }));
    } catch (failure) {
      setError(failure.message);
      setBusy(false);
    }
  };
  const type = (name, text) => {
    setTyped({ ...typed, [name]: text });
    if (!action.has_trial) setError(null);
  };
  const field = (name, label, hint, part, props = {}) =>
    h(Field.Root, { key: name }, h(Field.Label, null, label),
      h(part, { value: typed[name] ?? "", onChange: (e) => type(name, e.target.value), ...props }),
      h(Field.HelperText, null, hint));
  const isReady = !isBusy && (!action.has_trial || (trial !== null && trial.count > 0));

  return h(Dialog.Root, { open: true, onOpenChange: (e) => e.open || onClose(), initialFocusEl: () => first.current, lazyMount: true },
    h(Portal, null, h(Dialog.Backdrop), h(Dialog.Positioner, null, h(Dialog.Content, { as: "form", onSubmit: confirm },
      h(Dialog.Header, null, h(Dialog.Title, null, title ?? `${action.label}: ${what}`)),
      h(Dialog.Body, null, h(Stack, { gap: 4 },
        targets.length > 0 && h(Text, { fontWeight: "medium", wordBreak: "break-word" },
          targets.slice(0, SHOWN_TARGETS).join(", ") + (targets.length > SHOWN_TARGETS ? ` and ${targets.length - SHOWN_TARGETS} more` : "")),
        h(Text, null, action.consequence),
        action.has_trial && h("div", { role: "status" }, trial === null
          ? h(Text, { color: "fg.muted" }, error ? "" : "Counting ...")
          : h(List.Root, { fontSize: "sm", ps: 4, maxH: 40, overflowY: "auto" }, trial.lines.map((line, n) => h(List.Item, { key: n }, line.text)))),
        action.asks.map((name, n) => {
          const { label, hint, name: key, isNumber, isFlag } = FIELDS[name];
          if (isFlag) {
            return h("label", { key }, h("input", { type: "checkbox", ref: first, checked: Boolean(typed[key]), onChange: (e) => type(key, e.target.checked) }), ` ${label}`);
          }
          return field(key, label, hint, Input, { ref: n === 0 ? first : undefined, inputMode: isNumber ? "numeric" : undefined });
        }),
        field("reason", "Reason", "for everyone who sees this, and for Airflow's audit log; not secret", Textarea,
          { maxLength: 500, rows: 2, ref: action.asks.length ? undefined : first }),
        error && h(Alert.Root, { status: "error", role: "alert" }, h(Alert.Indicator), h(Alert.Title, null, error)))),
      h(Dialog.Footer, null,
        h(Button, { variant: "outline", type: "button", onClick: onClose }, "Cancel"),
        h(Button, { type: "submit", loading: isBusy, disabled: !isReady, colorPalette: action.is_dangerous ? "red" : "brand" }, action.label))))));
}
