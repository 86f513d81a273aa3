// Words, badges, the table of a tab, and what came of an action.

import { ChakraUI, React, ask, h } from "./host.js";

const { Alert, Badge, Box, Button, CloseButton, Code, Flex, HStack, List, Skeleton, Stack, Table, Text } = ChakraUI;
const { useEffect, useState } = React;

const COLOURS = {
  served: "green", running: "green", paused: "orange", draining: "blue", unserved: "red",
  lost: "red", idle: "gray",
};

export const stateBadge = (state) =>
  h(Badge, { colorPalette: COLOURS[state] ?? "gray", variant: "subtle" }, state);

// 93784 is "1 d 2 h": the two largest units.
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "-";
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let rest = Math.max(0, Math.floor(seconds));
  const parts = [];
  for (const [unit, size] of units) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count || (unit === "s" && !parts.length)) parts.push(`${count} ${unit}`);
  }
  return parts.slice(0, 2).join(" ");
}

// "1h30m" is 5400, as on the command line; NaN is no duration.
export function seconds(text) {
  if (!/^([0-9]{1,6}[smhd])+$/.test(text)) return NaN;
  const units = { s: 1, m: 60, h: 3600, d: 86400 };
  const found = [...text.matchAll(/(\d+)(\D)/g)].reduce((sum, [, n, unit]) => sum + n * units[unit], 0);
  return found || NaN;
}

export const number = (value) => (value === null || value === undefined ? "-" : value.toLocaleString());

export const many = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

export function moment(text) {
  return text === "resumed" ? "until it is resumed" : `until ${new Date(text).toLocaleString()}`;
}

// What is wrong, above what is still shown.
export function Trouble({ error, age }) {
  if (!error) return null;
  const shown = age === null || age === undefined
    ? "Nothing is shown until then; this page goes on asking."
    : `What is shown is ${duration(age)} old; this page goes on asking.`;
  return h(Alert.Root, { status: "warning", role: "alert", mb: 3 },
    h(Alert.Indicator),
    h(Alert.Content, null, h(Alert.Title, null, error), h(Alert.Description, null, shown)));
}

export function Empty({ title, children }) {
  return h(Stack, { align: "center", py: 12, gap: 2, color: "fg.muted", textAlign: "center" },
    h(Text, { fontWeight: "semibold", color: "fg" }, title), children);
}

export const command = (text) => h(Code, { size: "sm" }, text);

export function Loading() {
  return h(Stack, { gap: 2, "aria-busy": true, "aria-label": "Loading" },
    [1, 2, 3, 4].map((n) => h(Skeleton, { key: n, height: 8 })));
}

function header(column, sort, onSort) {
  const isSorted = sort.column === column.name;
  const direction = sort.isReversed ? "descending" : "ascending";
  const props = { key: column.name, scope: "col", textAlign: column.isNumber ? "end" : "start", whiteSpace: "nowrap" };
  if (!onSort || column.isUnsorted) return h(Table.ColumnHeader, { ...props, fontSize: "xs", fontWeight: "semibold" }, column.label);
  return h(Table.ColumnHeader, { ...props, "aria-sort": isSorted ? direction : "none" },
    h(Button, { variant: "plain", size: "xs", px: 0, h: "auto", fontWeight: "semibold", onClick: () => onSort(column.name) },
      column.label, h("span", { "aria-hidden": true }, isSorted ? (sort.isReversed ? " ↓" : " ↑") : "")));
}

const box = (props) => h("input", { type: "checkbox", style: { width: 16, height: 16, cursor: "pointer" }, ...props });

// A table of one page of rows; `selected` is a Set of keys, and null where nothing can be selected.
export function Rows({ label, columns, rows, keyOf, sort = {}, onSort, selected, onSelect }) {
  const keys = rows.map(keyOf);
  const all = keys.length > 0 && keys.every((key) => selected?.has(key));
  const toggle = (which, isOn) => {
    const next = new Set(selected);
    for (const key of which) next[isOn ? "add" : "delete"](key);
    onSelect(next);
  };
  const boxHeader = selected && h(Table.ColumnHeader, { scope: "col", width: 8 },
    box({ "aria-label": "Select all rows of this page", checked: all, onChange: (e) => toggle(keys, e.target.checked) }));
  return h(Box, { overflowX: "auto", borderWidth: 1, borderRadius: "md" },
    h(Table.Root, { size: "sm", "aria-label": label, interactive: true },
      h(Table.Header, null,
        h(Table.Row, null, boxHeader, columns.map((column) => header(column, sort, onSort)))),
      h(Table.Body, null, rows.map((row, n) =>
        h(Table.Row, { key: keys[n], "data-selected": selected?.has(keys[n]) ? "" : undefined },
          selected && h(Table.Cell, null, box({
            "aria-label": `Select ${keys[n]}`,
            checked: selected.has(keys[n]),
            onChange: (e) => toggle([keys[n]], e.target.checked),
          })),
          columns.map((column, c) => h(Table.Cell, {
            key: column.name,
            textAlign: column.isNumber ? "end" : "start",
            fontVariantNumeric: "tabular-nums",
            ...(c === 0 ? { as: "th", scope: "row", fontWeight: "medium" } : {}),
          }, column.show ? column.show(row) : column.isNumber ? number(row[column.name]) : row[column.name] ?? "-")))))));
}

export function Pages({ text, previous, next }) {
  return h(Flex, { as: "nav", "aria-label": "Pages", justify: "space-between", align: "center", mt: 3 },
    h(Text, { color: "fg.muted", fontSize: "sm" }, text),
    h(HStack, null,
      h(Button, { size: "xs", variant: "outline", disabled: !previous, onClick: previous }, "Previous"),
      h(Button, { size: "xs", variant: "outline", disabled: !next, onClick: next }, "Next")));
}

// What came of the last action; a screen reader says it, and it stays until it is closed.
export function Result({ result, onClose }) {
  const isWell = result?.lines.every((line) => line.is_well);
  return h("div", { role: "status", "aria-live": "polite" }, result && h(Alert.Root, { status: isWell ? "success" : "warning", mb: 3 },
    h(Alert.Indicator),
    h(Alert.Content, null, h(Alert.Title, null, result.title),
      h(List.Root, { fontSize: "sm", ps: 4, maxH: 40, overflowY: "auto" }, result.lines.map((line, n) => h(List.Item, { key: n, wordBreak: "break-word" }, line.text)))),
    h(CloseButton, { size: "sm", "aria-label": "Close this message", onClick: onClose })));
}

export function useMe() {
  const [me, setMe] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    ask("me", { signal: abort.signal }).then(setMe, () => {});
    return () => abort.abort();
  }, []);
  return me;
}
