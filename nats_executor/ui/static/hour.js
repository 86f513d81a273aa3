// The last hour of a queue: a small curve in its row; clicked, it shows three charts and what waits.

import { ChakraUI, React, h, useAnswer } from "./host.js";
import { Empty, Loading, Rows, Trouble, duration, many, number } from "./parts.js";

const { Box, CloseButton, Dialog, Flex, Portal, Stack, Text } = ChakraUI;
const { useState } = React;

const WIDTH = 120;
const HEIGHT = 24;

const CHARTS = [
  { name: "depth", label: "Waiting", unit: "" },
  { name: "ended", label: "Ended in each minute", unit: "" },
  { name: "wait_seconds", label: "Mean wait of what started", unit: " s" },
];

const COLUMNS = [
  { name: "position", label: "Position", isNumber: true },
  { name: "dag", label: "Dag" },
  { name: "run", label: "Run" },
  { name: "task", label: "Task" },
  { name: "map_index", label: "Map index", isNumber: true },
  { name: "try", label: "Try", isNumber: true },
  { name: "waits_seconds", label: "Waits", isNumber: true, show: (row) => duration(row.waits_seconds) },
  { name: "priority", label: "Priority", isNumber: true },
];

const most = (values) => Math.max(0, ...values.map((value) => value ?? 0));

function curve(values) {
  const top = most(values) || 1;
  const x = (n) => (n * WIDTH) / Math.max(1, values.length - 1);
  return values.map((value, n) => `${x(n).toFixed(1)},${(HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1)}`).join(" ");
}

export function Hour({ queue, depths }) {
  const [isOpen, setOpen] = useState(false);
  const label = `Last hour of ${queue}: at most ${number(most(depths))} waiting`;
  return h(React.Fragment, null,
    h(Box, { as: "button", type: "button", display: "block", color: "blue.fg", cursor: "pointer", "aria-label": label, title: label, onClick: () => setOpen(true) },
      h("svg", { width: WIDTH, height: HEIGHT, "aria-hidden": true },
        h("polyline", { points: curve(depths), fill: "none", stroke: "currentColor", strokeWidth: 1.5 }))),
    isOpen && h(HourDialog, { queue, onClose: () => setOpen(false) }));
}

function HourDialog({ queue, onClose }) {
  const { answer, error } = useAnswer("queues/hour", { queue });
  return h(Dialog.Root, { open: true, size: "xl", onOpenChange: (e) => e.open || onClose(), lazyMount: true },
    h(Portal, null, h(Dialog.Backdrop), h(Dialog.Positioner, null, h(Dialog.Content, null,
      h(Dialog.Header, null, h(Dialog.Title, null, `Last hour of ${queue}`)),
      h(Dialog.Body, null,
        h(Trouble, { error: error ?? answer?.trouble, age: answer?.age_seconds }),
        answer ? h(Stack, { gap: 4 }, CHARTS.map((chart) => h(Chart, { key: chart.name, minutes: answer.minutes, ...chart })))
          : !error && h(Loading),
        h(Waiting, { queue })),
      h(Dialog.CloseTrigger, { asChild: true }, h(CloseButton, { size: "sm", "aria-label": "Close" }))))));
}

// What workers take next: as `airflow nats queues peek`.
function Waiting({ queue }) {
  const { answer, error } = useAnswer("queues/waiting", { queue });
  if (error) return h(Trouble, { error });
  if (!answer) return h(Loading);
  if (!answer.total) return h(Empty, { title: "No task waits in it" });
  const all = `${answer.is_whole ? "" : "at least "}${many(answer.total, "task")}`;
  const said = answer.rows.length < answer.total ? `Next of ${all} that wait` : `${all} waiting`;
  return h(Stack, { gap: 2, mt: 4 },
    h(Text, { fontSize: "sm", fontWeight: "medium" }, said),
    h(Rows, { label: "What waits", columns: COLUMNS, rows: answer.rows, keyOf: (row) => row.dispatch_id, selected: null }));
}

function Chart({ minutes, name, label, unit }) {
  const values = minutes.map((minute) => minute[name]);
  const top = most(values);
  const said = `${label}: ${number(values.at(-1))}${values.at(-1) === null ? "" : unit} now, at most ${number(top)}${unit}`;
  const bar = (value, n) => {
    const height = top ? ((value ?? 0) / top) * 60 : 0;
    return h("rect", { key: n, x: n * 10, y: 60 - height, width: 8, height }, h("title", null, `${time(minutes[n].at)}: ${number(value)}${value === null ? "" : unit}`));
  };
  return h(Box, null,
    h(Text, { fontSize: "sm", fontWeight: "medium" }, said),
    h(Box, { color: "blue.solid", borderBottomWidth: 1 },
      h("svg", { viewBox: "0 0 600 60", width: "100%", height: 60, preserveAspectRatio: "none", fill: "currentColor", role: "img", "aria-label": said }, values.map(bar))),
    h(Flex, { justify: "space-between", color: "fg.muted", fontSize: "xs" }, [minutes[0], minutes.at(-1)].map((minute) => h("span", { key: minute.at }, time(minute.at)))));
}

const time = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
