// The page "NATS": queues, workers and dead letters, and what operators order.

import { ChakraUI, React, ReactRouterDOM, h, useAnswer } from "./host.js";
import { ActionDialog } from "./dialog.js";
import { Hour } from "./hour.js";
import { WorkerName } from "./worker.js";
import { Empty, Loading, Pages, Result, Rows, Trouble, command, duration, many, moment, number, stateBadge, useMe } from "./parts.js";

const { Box, Button, Flex, Heading, HStack, Input, NativeSelect, Stack, Tabs, Text } = ChakraUI;
const { useEffect, useMemo, useRef, useState } = React;

const PAGE_ROWS = 50;

const TABLES = {
  queues: {
    label: "Queues",
    noun: "queue",
    key: "queue",
    filters: [{ name: "queue", label: "Queue" }],
    states: ["served", "unserved", "paused", "idle"],
    columns: [
      { name: "queue", label: "Queue" },
      { name: "state", label: "State", show: (row) => stateBadge(row.state) },
      { name: "pending", label: "Pending", isNumber: true },
      { name: "in_flight", label: "Running", isNumber: true },
      { name: "workers", label: "Workers", isNumber: true },
      { name: "slots", label: "Slots", isNumber: true },
      { name: "redelivered", label: "Redelivered", isNumber: true },
      { name: "hour", label: "Last hour", isUnsorted: true, show: (row) => h(Hour, { queue: row.queue, depths: row.hour }) },
      { name: "paused_until", label: "Paused", show: (row) => pauseOf(row) },
    ],
    empty: ["There is no queue yet", "A queue is listed as soon as a worker serves it, or a task was sent to it. Start a worker:", "airflow nats worker -q default"],
  },
  workers: {
    label: "Workers",
    noun: "worker",
    key: "worker",
    filters: [{ name: "worker", label: "Worker" }, { name: "queue", label: "Queue" }],
    states: ["running", "draining", "paused", "lost"],
    columns: [
      { name: "worker", label: "Worker", show: (row) => h(WorkerName, { name: row.worker }) },
      { name: "state", label: "State", show: (row) => stateBadge(row.state) },
      { name: "queues", label: "Queues", show: (row) => row.queues.join(", ") },
      { name: "running", label: "Running", isNumber: true },
      { name: "concurrency", label: "Slots", isNumber: true },
      { name: "host", label: "Host" },
      { name: "last_seen_seconds", label: "Seen", isNumber: true, show: (row) => `${duration(row.last_seen_seconds)} ago` },
      { name: "version", label: "Version" },
      { name: "reason", label: "Note", show: (row) => noteOf(row) },
    ],
    empty: ["There is no worker", "Tasks wait until one is there. Start one, on any machine that reaches NATS:", "airflow nats worker -q default"],
  },
  "dead-letters": {
    label: "Dead letters",
    noun: "dead letter",
    key: "sequence",
    filters: [{ name: "queue", label: "Queue", isExact: true }, { name: "dag", label: "Dag", isExact: true }],
    columns: [
      { name: "sequence", label: "Sequence", show: (row) => row.sequence },
      { name: "age_seconds", label: "Age", isNumber: true, show: (row) => duration(row.age_seconds) },
      { name: "queue", label: "Queue" },
      { name: "dag", label: "Dag" },
      { name: "run", label: "Run" },
      { name: "task", label: "Task" },
      { name: "map_index", label: "Map index", isNumber: true },
      { name: "try", label: "Try", isNumber: true },
      { name: "reason", label: "Reason" },
    ],
    empty: ["There are no dead letters", "A message is put here when no worker can handle it, with the reason."],
  },
};

function pauseOf(row) {
  if (!row.paused_until) return "-";
  const by = row.paused_by ? ` by ${row.paused_by}` : "";
  return `${moment(row.paused_until)}${by}${row.reason ? `: ${row.reason}` : ""}`;
}

function noteOf(row) {
  if (!row.drained_by) return row.reason ?? "-";
  return `drained by ${row.drained_by}${row.reason ? `: ${row.reason}` : ""}`;
}

// Tab, filters, order and page, kept in the address, so that it can be sent to a colleague.
function useAddress() {
  const [params, setParams] = ReactRouterDOM.useSearchParams();
  const tab = params.get("tab") in TABLES ? params.get("tab") : "queues";
  const get = (name) => params.get(name) ?? "";
  const change = (changes, { keepPage = false } = {}) => {
    // Not of `params`: another change may have come since they were drawn.
    const next = new URLSearchParams(globalThis.location.search);
    if (!keepPage) ["page", "before"].forEach((name) => next.delete(name));
    for (const [name, value] of Object.entries(changes)) {
      if (value === "" || value === null) next.delete(name);
      else next.set(name, value);
    }
    setParams(next, { replace: true });
  };
  const open = (name) => setParams(name === "queues" ? {} : { tab: name });
  return { tab, get, change, open };
}

// A filter that waits until a person has stopped typing.
function FilterInput({ label, value, onChange, hint }) {
  const [text, setText] = useState(value);
  const timer = useRef(0);
  useEffect(() => setText(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const type = (event) => {
    const next = event.target.value;
    setText(next);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onChange(next), 300);
  };
  return h(Input, { size: "sm", width: 48, value: text, onChange: type, type: "search", "aria-label": `Filter: ${label}`, placeholder: `${label}${hint}` });
}

function Filters({ table, address }) {
  return h(HStack, { wrap: "wrap" },
    table.filters.map(({ name, label, isExact }) => h(FilterInput, {
      key: `${address.tab} ${name}`, label, hint: isExact ? "" : " or pattern", value: address.get(name),
      onChange: (text) => address.change({ [name]: text }),
    })),
    table.states && h(NativeSelect.Root, { size: "sm", width: 36 },
      h(NativeSelect.Field, { "aria-label": "Filter: State", value: address.get("state"), onChange: (e) => address.change({ state: e.target.value }) },
        h("option", { value: "" }, "Any state"), table.states.map((state) => h("option", { key: state, value: state }, state))),
      h(NativeSelect.Indicator)));
}

function summary(table, answer) {
  if (!answer || answer.total === null) return "";
  const states = Object.entries(answer.states ?? {}).filter(([, count]) => count).map(([state, count]) => `${number(count)} ${state}`);
  return many(answer.total, table.noun) + (states.length ? `: ${states.sort().join(", ")}` : "");
}

function useTable(address) {
  const { tab, get } = address;
  const table = TABLES[tab];
  const params = { limit: PAGE_ROWS };
  for (const { name } of table.filters) params[name] = get(name);
  const isFiltered = table.filters.some(({ name }) => get(name)) || Boolean(table.states && get("state"));
  const page = Math.max(0, Number.parseInt(get("page"), 10) || 0);
  if (tab === "dead-letters") params.before = get("before");
  else Object.assign(params, { state: get("state"), sort: get("sort"), reverse: get("reverse"), offset: page * PAGE_ROWS });
  return { table, page, isFiltered, ...useAnswer(tab, params) };
}

function PagesOf({ address, page, answer, history }) {
  if (address.tab === "dead-letters") {
    const previous = address.get("before") && (() => {
      const back = history.current.pop();
      address.change({ before: back ?? "" }, { keepPage: true });
    });
    const next = answer.older && (() => {
      history.current.push(address.get("before"));
      address.change({ before: String(answer.older) }, { keepPage: true });
    });
    return h(Pages, { text: `${many(answer.rows.length, "dead letter")} here, the newest first`, previous, next });
  }
  const last = Math.min((page + 1) * PAGE_ROWS, answer.found);
  const go = (to) => () => address.change({ page: to ? String(to) : "" }, { keepPage: true });
  return h(Pages, {
    text: answer.found ? `${number(page * PAGE_ROWS + 1)} to ${number(last)} of ${number(answer.found)}` : "",
    previous: page > 0 && go(page - 1),
    next: last < answer.found && go(page + 1),
  });
}

function Content({ state, address, selected, onSelect }) {
  const { table, answer, isFiltered } = state;
  if (!answer) return state.error ? null : h(Loading);
  const isNothing = !answer.rows.length;
  if (isNothing && isFiltered && !answer.older) {
    return h(Empty, { title: `No ${table.noun} matches the filter` },
      h(Button, { size: "sm", variant: "outline", onClick: () => address.open(address.tab) }, "Clear the filter"));
  }
  if (isNothing && !answer.older && answer.trouble) return null;
  if (isNothing && !answer.older && !state.page) {
    const [title, text, run] = table.empty;
    return h(Empty, { title }, h(Text, null, text), run && command(run));
  }
  if (isNothing && answer.older) {
    return h(Empty, { title: "None among those that were looked at" }, h(Text, null, "There are older ones: Next looks on."));
  }
  const sort = { column: address.get("sort"), isReversed: address.get("reverse") === "true" };
  const onSort = address.tab === "dead-letters" ? null : (column) =>
    address.change({ sort: column, reverse: sort.column === column && !sort.isReversed ? "true" : "" });
  return h(Rows, {
    label: table.label, columns: table.columns, rows: answer.rows, keyOf: (row) => String(row[table.key]),
    sort, onSort, selected, onSelect,
  });
}

function Actions({ actions, selected, filter, onChoose, buttons }) {
  return h(HStack, { wrap: "wrap", role: "group", "aria-label": "Actions" }, actions.map((action) => {
    const isPossible = selected.size > 0 || action.by_filter;
    return h(Button, {
      key: action.command, size: "sm", variant: "outline", disabled: !isPossible,
      colorPalette: action.is_dangerous ? "red" : undefined,
      title: isPossible ? action.consequence : "Select rows first",
      ref: (element) => { buttons.current[action.command] = element; },
      onClick: () => onChoose({ action, targets: [...selected], filter }),
    }, action.label);
  }));
}

function Page() {
  const address = useAddress();
  const me = useMe();
  const [selected, setSelected] = useState(new Set());
  const [chosen, setChosen] = useState(null);
  const [result, setResult] = useState(null);
  const buttons = useRef({});
  const history = useRef([]);
  const state = useTable(address);
  const { tab } = address;
  const { table, answer } = state;
  const actions = useMemo(() => (me?.actions ?? []).filter((action) => action.table === tab), [me, tab]);
  useEffect(() => {
    setSelected(new Set());
    history.current = [];
  }, [tab]);
  const filter = {};
  for (const name of ["queue", "dag"]) if (address.get(name)) filter[name] = address.get(name);

  const close = () => {
    const button = buttons.current[chosen.action.command];
    setChosen(null);
    // The dialog gives the focus back by itself; not to a button that was disabled meanwhile.
    setTimeout(() => (button?.disabled ? document.getElementById(`nats-tab-${tab}`) : button)?.focus(), 0);
  };
  const done = (action, { lines }) => {
    setResult({ title: `${action.label}: done`, lines });
    setSelected(new Set());
    close();
    state.again();
  };

  return h(Box, { p: 4, height: "100%", overflowY: "auto" },
    h(Flex, { justify: "space-between", align: "baseline", mb: 2 },
      h(Heading, { as: "h1", size: "lg" }, "NATS"),
      h(Text, { color: "fg.muted", fontSize: "sm", "data-testid": "summary" }, summary(table, answer))),
    h(Tabs.Root, { value: tab, onValueChange: (e) => address.open(e.value), mb: 3, size: "sm" },
      h(Tabs.List, { "aria-label": "What NATS has" }, Object.entries(TABLES).map(([name, { label }]) =>
        h(Tabs.Trigger, { key: name, value: name, id: `nats-tab-${name}` }, label)))),
    h(Result, { result, onClose: () => setResult(null) }),
    h(Trouble, { error: state.error ?? answer?.trouble, age: answer?.age_seconds }),
    h(Stack, { gap: 3 },
      h(Flex, { justify: "space-between", wrap: "wrap", gap: 2 },
        h(Filters, { table, address }),
        h(Actions, { actions, selected, filter, buttons, onChoose: setChosen })),
      h(Box, { "aria-busy": state.isOld, opacity: state.isOld && answer ? 0.6 : 1 },
        h(Content, { state, address, selected: actions.length ? selected : null, onSelect: setSelected }),
        answer && !state.isOld && h(PagesOf, { address, page: state.page, answer, history }))),
    me && !me.actions.length && h(Text, { mt: 3, color: "fg.muted", fontSize: "sm" },
      `You may look, ${me.name}. To order something here takes the right to change Airflow's pools.`),
    chosen && h(ActionDialog, { ...chosen, onClose: close, onDone: done }));
}

globalThis.AirflowPlugin = Page;
