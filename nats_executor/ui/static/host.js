// What Airflow's UI lends to a plugin's page, and how the page asks its own API.

const { React, ChakraUI, ReactRouterDOM } = globalThis;

export { ChakraUI, React, ReactRouterDOM };
export const h = React.createElement;

const { useCallback, useEffect, useRef, useState } = React;

export const REFRESH_MILLISECONDS = 3000;

// Relative to Airflow's own address, which may have a path.
const address = (path) => new URL(`nats/api/${path}`, document.baseURI);

// Returns the answer of the API; throws an Error with the line that a person is to read.
export async function ask(path, { params = {}, body, signal } = {}) {
  const url = address(path);
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  const options = body === undefined
    ? { signal }
    : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal };
  let answer;
  try {
    answer = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("Airflow's API server does not answer; this page goes on asking");
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(complaint(answer.status, said.detail));
  return said;
}

function complaint(status, detail) {
  if (status === 401) return "You are logged out: load this page again to log in";
  if (Array.isArray(detail)) {
    return detail.map((part) => `${(part.loc ?? []).at(-1)}: ${part.msg}`).join("; ");
  }
  return detail ?? `Airflow's API server answers with status ${status}`;
}

// Asks at once, and every three seconds while the tab can be seen. `again` asks now.
export function useAnswer(path, params) {
  const [state, setState] = useState({ path: null, key: null, answer: null, error: null });
  const key = JSON.stringify([path, params]);
  const asking = useRef(null);
  const look = useCallback(() => {
    asking.current?.abort();
    const abort = new AbortController();
    asking.current = abort;
    ask(path, { params, signal: abort.signal }).then(
      (answer) => abort.signal.aborted || setState({ path, key, answer, error: null }),
      (error) => abort.signal.aborted || setState((old) => ({ ...old, path, answer: old.path === path ? old.answer : null, error: error.message })),
    ).finally(() => {
      if (asking.current === abort) asking.current = null;
    });
  }, [key]);
  useEffect(() => {
    look();
    const tick = () => {
      // A look that is under way is waited for, however slow it is.
      if (document.visibilityState !== "hidden" && asking.current === null) look();
    };
    const timer = setInterval(tick, REFRESH_MILLISECONDS);
    document.addEventListener("visibilitychange", tick);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", tick);
      asking.current?.abort();
      asking.current = null;
    };
  }, [look]);
  // With other filters the old rows are shown until the new ones are there, but marked as such.
  const isOther = state.path !== path;
  return {
    answer: isOther ? null : state.answer,
    error: isOther ? null : state.error,
    isOld: state.key !== key,
    again: look,
  };
}
