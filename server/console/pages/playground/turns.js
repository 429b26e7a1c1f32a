// What was said and answered so far, turn by turn; one is asked at a time.
import { keep, read } from "../../kept.js";
import { useEffect, useRef, useState } from "../../view.js";
import { answered } from "./comparing.js";

const NOTHING = { turns: [], isOn: false, error: null, told: "" };

/**
 * Returns { turns, isOn, error, told, ask, stop, clear, takeBack }; a turn is { said, answers }. The
 * turns are kept under a name, an answer that was left before its end as far as it was.
 */
export function useTurns(name) {
  const [state, setState] = useState(() => ({ ...NOTHING, turns: read(name) ?? [] }));
  const control = useRef(null);
  const latest = useRef();
  latest.current = state.turns;
  const keepAll = () => keep(name, latest.current.map(ended));
  useEffect(() => { if (!state.isOn) keepAll(); }, [state.isOn, state.turns]);
  useEffect(() => () => {
    control.current?.abort();
    keepAll();
  }, []);
  const stop = () => control.current?.abort();
  const put = (turns, told = "") => {
    stop();
    control.current = null;
    setState({ ...NOTHING, turns, told });
  };
  /**
   * Asks `said` behind the turns `before`, in these requests; it replaces what came after them.
   * Returns whether it was asked: false where all requests were refused, and the turn is not kept.
   */
  const ask = async (before, said, models, requests) => {
    stop();
    const mine = new AbortController();
    control.current = mine;
    const show = (change) => control.current === mine && setState((old) => ({ ...old, ...change }));
    show({ turns: before, isOn: true, error: null, told: "" });
    try {
      await answered(models, requests, mine.signal, (answers) => show({ turns: [...before, { said, answers }] }));
      show({ told: "All answers are there" });
    } catch (error) {
      if (error.name !== "AbortError") {
        show({ error, turns: before, isOn: false });
        return false;
      }
      show({ told: "Stopped" });
    }
    show({ isOn: false });
    return true;
  };
  return {
    ...state,
    ask,
    stop,
    clear: () => put([], "A new chat"),
    takeBack: () => put(state.turns.slice(0, -1), "The last message is taken back"),
  };
}

const ended = ({ said, answers }) => ({ said, answers: answers.map((one) => ({ ...one, isOver: true })) });
