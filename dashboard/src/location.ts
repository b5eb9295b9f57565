// Pages are named behind the `#`, so that the service serves one file and may lie under any path.
import { signal } from "@preact/signals";

export interface Place {
  /** Parts of the path, decoded. */
  path: string[];
  query: URLSearchParams;
}

function read(): Place {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: (path ?? "").split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query) };
}

export const place = signal<Place>(read());
addEventListener("hashchange", () => (place.value = read()));

export function href(path: string[], query: Record<string, string> = {}): string {
  const kept = Object.entries(query).filter(([, value]) => value !== "");
  const said = new URLSearchParams(kept).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${said ? `?${said}` : ""}`;
}

export const jobHref = (job: { tenant: string; id: string }) => href(["jobs", job.tenant, job.id]);
