// What the service tells by itself: one stream feeds every page while the tab is seen.
import { batch, signal } from "@preact/signals";
import { api } from "./api";
import { me, token, trouble } from "./session";
import { follow } from "./stream";
import type { Job, Node, Summary } from "./types";

export const summary = signal<Summary | null>(null);
export const nodes = signal<Node[]>([]);
export const standing = signal(false);

type JobListener = (job: Job) => void;
const listeners = new Set<JobListener>();

/** Calls `listener` with every job that changed, until the returned function is called. */
export function onJob(listener: JobListener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

let running: AbortController | null = null;

function stop(): void {
  running?.abort();
  running = null;
}

function start(): void {
  stop();
  const mine = new AbortController();
  running = mine;
  const event = ({ event: kind, data }: { event?: string; data: string }) => {
    const value = JSON.parse(data);
    batch(() => {
      if (kind === "summary") summary.value = value;
      else if (kind === "nodes") nodes.value = value;
      else if (kind === "job") listeners.forEach((listener) => listener(value));
    });
  };
  void follow("v1/events", { event, standing: (stands) => (standing.value = stands) }, mine.signal);
}

/** Finds out who is looking, and follows the service from then on. */
export async function begin(): Promise<void> {
  try {
    me.value = await api.me();
    trouble.value = "none";
    start();
  } catch (error) {
    if (trouble.value === "none" && !(error instanceof Error && "status" in error && error.status === 401)) {
      trouble.value = "unreachable";
      setTimeout(() => trouble.value === "unreachable" && ((trouble.value = "none"), void begin()), 3000);
    }
  }
}

document.addEventListener("visibilitychange", () => {
  // Browsers open few connections to one server: a tab that nobody sees leaves them to others.
  if (document.hidden) stop();
  else if (me.value) start();
});
me.subscribe((who) => {
  if (!who) stop();
});
token.subscribe(() => {
  summary.value = null;
  nodes.value = [];
});
