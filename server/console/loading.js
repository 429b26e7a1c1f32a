// What a page reads: once, or again and again while it is seen.
import { useCallback, useEffect, useRef, useState } from "./view.js";

/** Returns { data, error, reload } of an async `read`, which runs when `inputs` change. */
export function useLoad(read, inputs) {
  const [state, setState] = useState({ data: null, error: null });
  const newest = useRef(0);
  const reload = useCallback(async () => {
    const turn = ++newest.current;
    const settle = (change) => turn === newest.current && setState(change);
    try {
      const data = await read();
      settle({ data, error: null });
    } catch (error) {
      settle((before) => ({ ...before, error }));
    }
  }, inputs);
  useEffect(() => {
    reload();
    return () => { newest.current += 1; };
  }, [reload]);
  return { ...state, reload };
}

/** Runs `work` now and every `everyMs` after it has ended, not while the page is hidden. */
export function usePoll(work, everyMs, inputs = []) {
  useEffect(() => {
    let timer;
    let isOver = false;
    const turn = async () => {
      if (!document.hidden) await work();
      if (!isOver) timer = setTimeout(turn, everyMs);
    };
    turn();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [everyMs, ...inputs]);
}
