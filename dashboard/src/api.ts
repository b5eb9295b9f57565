// Requests of the public API.
import { keepToken, me, token, trouble } from "./session";
import type { FrameStrip, Job, JobPage, JobRequest, Link, Me, Node, Route, Style } from "./types";

/** A refusal: `kind` is stable, the message is for people. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly kind: string,
    message: string,
  ) {
    super(message);
  }
}

export function headers(more: Record<string, string> = {}): Record<string, string> {
  return token.value ? { authorization: `Bearer ${token.value}`, ...more } : more;
}

/** The session has ended: the next thing to do is to sign in. */
export function signOut(reason: "token" | "refused"): void {
  keepToken(null);
  me.value = null;
  trouble.value = reason;
}

export function refusalOf(status: number, text: string): Refusal {
  if (status === 401) signOut(token.value ? "refused" : "token");
  try {
    const problem = JSON.parse(text);
    return new Refusal(status, problem.kind ?? "unknown", problem.detail ?? problem.title);
  } catch {
    return new Refusal(status, "unknown", `the service answered ${status}`);
  }
}

async function ask(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const init: RequestInit = { method, headers: headers(), signal, cache: "no-store" };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = headers({ "content-type": "application/json" });
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal(0, "unreachable", "the service cannot be reached");
  }
  if (!response.ok) throw refusalOf(response.status, await response.text());
  return response;
}

async function json<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  return (await ask(method, path, body, signal)).json();
}

const part = encodeURIComponent;
const keyPath = (key: string) => key.split("/").map(part).join("/");
export const jobPath = (job: { tenant: string; id: string }, rest = "") =>
  `v1/jobs/${part(job.id)}${rest}?tenant=${part(job.tenant)}`;

export type JobVerb = "cancel" | "retry" | "pause" | "resume";
export type NodeVerb = "preempt" | "drain" | "resume";
type Which = { tenant: string; id: string };

export const api = {
  me: () => json<Me>("GET", "v1/me"),
  jobs: (query: Record<string, string>, signal?: AbortSignal) =>
    json<JobPage>("GET", `v1/jobs?${new URLSearchParams(query)}`, undefined, signal),
  job: (job: Which) => json<Job>("GET", jobPath(job)),
  steer: (job: Which, verb: JobVerb) => json<Job>("POST", jobPath(job, `/${verb}`)),
  create: (id: string, tenant: string, request: JobRequest) => json<Job>("PUT", jobPath({ id, tenant }), request),
  frames: (job: Which) => json<FrameStrip>("GET", jobPath(job, "/frames")),
  links: (job: Which) => json<Link[]>("GET", jobPath(job, "/links")),
  routes: () => json<Route[]>("GET", "v1/routes"),
  styles: () => json<Style[]>("GET", "v1/styles"),
  order: (node: string, verb: NodeVerb, body?: unknown) => json<Node>("POST", `v1/nodes/${keyPath(node)}/${verb}`, body),
  picture: async (path: string, signal?: AbortSignal) => (await ask("GET", path, undefined, signal)).blob(),
  output: (job: Which) => ask("GET", jobPath(job, "/output")),
};

/** Sends a file; only this kind of request tells how far it is. */
export function upload(
  route: string,
  key: string,
  file: File,
  progress: (share: number) => void,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `v1/routes/${part(route)}/files/${keyPath(key)}`);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => progress(event.total > 0 ? event.loaded / event.total : 0);
    request.onload = () =>
      request.status < 300 ? resolve() : reject(refusalOf(request.status, request.responseText));
    request.onerror = () => reject(new Refusal(0, "unreachable", "the upload broke off: the service cannot be reached"));
    request.onabort = () => reject(new Refusal(0, "aborted", "the upload was stopped"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
