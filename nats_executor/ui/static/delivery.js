// The tab "Delivery" of a task instance: what it waits for, and what is known of its way.

import { ChakraUI, React, h, useAnswer } from "./host.js";
import { ActionDialog } from "./dialog.js";
import { Loading, Result, Trouble, useMe } from "./parts.js";

const { Alert, Box, Button, Table, Text } = ChakraUI;
const { useRef, useState } = React;

const LABELS = {
  dispatch_id: "Dispatch id", queue: "Queue", band: "Priority band", waits_seconds: "Waits for (s)",
  ahead_least: "Ahead of it, at least", ahead_most: "Ahead of it, at most", held_by: "Held by",
};

const label = (name) => LABELS[name] ?? name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");

const text = (value) => (Array.isArray(value) ? value.join(", ") : value === true ? "yes" : value === false ? "no" : String(value));

// As a shell wants it.
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

const isKnown = ([, value]) => value !== null && !(Array.isArray(value) && !value.length);

function Facts({ facts }) {
  return h(Table.Root, { size: "sm", "aria-label": "What is known", maxW: "4xl" },
    h(Table.Body, null, Object.entries(facts).filter(isKnown).map(([name, value]) => h(Table.Row, { key: name },
      h(Table.ColumnHeader, { as: "th", scope: "row", width: 64 }, label(name)),
      h(Table.Cell, { wordBreak: "break-word" }, text(value))))));
}

function Sentence({ answer }) {
  const status = answer.needs_person ? "warning" : "info";
  return h(Alert.Root, { status, mb: 4 }, h(Alert.Indicator),
    h(Alert.Content, null, h(Alert.Title, null, answer.sentence),
      answer.remedy && h(Alert.Description, null, `Next: ${answer.remedy}`)));
}

function Delivery({ dagId, runId, taskId, mapIndex }) {
  const index = mapIndex === undefined || mapIndex === null ? -1 : Number(mapIndex);
  const { answer, error, again } = useAnswer("delivery", { dag_id: dagId, run_id: runId, task_id: taskId, map_index: index });
  const action = useMe()?.actions.find((one) => one.table === "delivery");
  const [isOpen, setOpen] = useState(false);
  const [result, setResult] = useState(null);
  const button = useRef(null);
  const close = () => {
    setOpen(false);
    setTimeout(() => button.current?.focus(), 0);
  };
  const filter = { dag: dagId, run: runId, task: taskId, map_index: index };
  const isLive = answer && ["queued", "running"].includes(answer.facts.state);

  return h(Box, { p: 2 },
    h(Result, { result, onClose: () => setResult(null) }),
    h(Trouble, { error, age: null }),
    !answer && !error && h(Loading),
    answer && h(React.Fragment, null,
      h("div", { role: "status", "aria-live": "polite" }, h(Sentence, { answer })),
      action && isLive && h(Button, { size: "sm", variant: "outline", colorPalette: "red", mb: 4, ref: button, onClick: () => setOpen(true) }, action.label),
      h(Facts, { facts: answer.facts }),
      h(Text, { mt: 3, color: "fg.muted", fontSize: "sm" }, `The same in a terminal: airflow nats why ${[dagId, runId, taskId].map(quoted).join(" ")}${index < 0 ? "" : ` --map-index ${index}`}`)),
    isOpen && h(ActionDialog, {
      action, filter, targets: [], title: `${action.label}: ${taskId}`, onClose: close,
      onDone: (_, { lines }) => { setResult({ title: `${action.label}: done`, lines }); close(); again(); },
    }));
}

globalThis.AirflowPlugin = Delivery;
