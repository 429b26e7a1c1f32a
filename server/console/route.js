// Where the reader is: `#/adapters/NAME?tab=layers` as a page, its parts and its query.
import { useEffect, useState } from "./view.js";

export function parsed(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?");
  const [page, ...parts] = path.split("/").map(decodeURIComponent);
  return { page: page || "playground", parts, query: new URLSearchParams(query) };
}

/** Returns the link to a page. */
export function linkTo(page, parts = [], query = {}) {
  const path = [page, ...parts].map(encodeURIComponent).join("/");
  const search = new URLSearchParams(query).toString();
  return `#/${path}${search ? `?${search}` : ""}`;
}

export const go = (...place) => { location.hash = linkTo(...place); };

export function useRoute() {
  const [route, setRoute] = useState(() => safely(location.hash));
  useEffect(() => {
    const follow = () => setRoute(safely(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}

function safely(hash) {
  try {
    return parsed(hash);
  } catch { // a part that is no percent-encoding
    return parsed("");
  }
}
