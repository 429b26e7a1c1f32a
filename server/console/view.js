// Preact with htm: `html` makes elements of a template. What a template is given is text, never markup.
import { createElement } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { Fragment, createContext, render } from "./vendor/preact.js";
export {
  useCallback, useContext, useEffect, useId, useLayoutEffect, useMemo, useReducer, useRef, useState,
} from "./vendor/hooks.js";

export const html = htm.bind(createElement);

/** Joins the class names that are not empty. */
export const names = (...all) => all.filter(Boolean).join(" ");
