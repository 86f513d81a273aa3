// What a worker runs now, when its name is clicked.

import { ChakraUI, React, h, useAnswer } from "./host.js";
import { Empty, Loading, Rows, Trouble, duration, number } from "./parts.js";

const { Box, CloseButton, Dialog, Portal, Stack, Text } = ChakraUI;
const { useState } = React;

const COLUMNS = [
  { name: "dag", label: "Dag" },
  { name: "run", label: "Run" },
  { name: "task", label: "Task" },
  { name: "map_index", label: "Map index", isNumber: true },
  { name: "try", label: "Try", isNumber: true },
  { name: "phase", label: "Phase" },
  { name: "seconds", label: "For", isNumber: true, show: (row) => duration(row.seconds) },
];

const megabytes = (bytes) => `${number(Math.round(bytes / 1e6))} MB`;

export function WorkerName({ name }) {
  const [isOpen, setOpen] = useState(false);
  return h(React.Fragment, null,
    h(Box, { as: "button", type: "button", cursor: "pointer", color: "blue.fg", textAlign: "start", onClick: () => setOpen(true) }, name),
    isOpen && h(WorkerDialog, { name, onClose: () => setOpen(false) }));
}

function WorkerDialog({ name, onClose }) {
  const { answer, error } = useAnswer("workers/show", { worker: name });
  return h(Dialog.Root, { open: true, size: "xl", onOpenChange: (e) => e.open || onClose(), lazyMount: true },
    h(Portal, null, h(Dialog.Backdrop), h(Dialog.Positioner, null, h(Dialog.Content, null,
      h(Dialog.Header, null, h(Dialog.Title, null, `Worker ${name}`)),
      h(Dialog.Body, null,
        h(Trouble, { error: error ?? answer?.trouble }),
        answer ? h(Told, { answer }) : !error && h(Loading)),
      h(Dialog.CloseTrigger, { asChild: true }, h(CloseButton, { size: "sm", "aria-label": "Close" }))))));
}

function Told({ answer: { details, carried } }) {
  const facts = [
    details.uptime_seconds !== null && `up for ${duration(details.uptime_seconds)}`,
    details.memory_used_bytes && details.memory_limit_bytes && `${megabytes(details.memory_used_bytes)} of ${megabytes(details.memory_limit_bytes)} used in its ${details.memory_of}`,
    `release ${details.version}`,
    details.airflow && `Airflow ${details.airflow}`,
    details.python && `Python ${details.python}`,
  ].filter(Boolean);
  return h(Stack, { gap: 3 },
    h(Text, { color: "fg.muted", fontSize: "sm" }, facts.join(", ")),
    carried && (carried.length
      ? h(Rows, { label: "What it runs", columns: COLUMNS, rows: carried, keyOf: (row) => row.dispatch_id, selected: null })
      : h(Empty, { title: "It runs nothing at the moment" })));
}
