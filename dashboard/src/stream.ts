// Server-sent events through fetch, since EventSource sends no token.
import { createParser, type EventSourceMessage } from "eventsource-parser";
import { headers, refusalOf } from "./api";

const RETRY_FIRST = 1000;
const RETRY_MAX = 15_000;

export interface StreamHandlers {
  event: (event: EventSourceMessage) => void;
  /** Whether it stands; called when that changes. */
  standing?: (stands: boolean) => void;
}

const pause = (millis: number, signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, millis);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

/** Follows a stream until `signal` aborts, the service says that nothing more comes, or it refuses for good. */
export async function follow(path: string, handlers: StreamHandlers, signal: AbortSignal): Promise<void> {
  let last: string | undefined;
  let wait = RETRY_FIRST;
  while (!signal.aborted) {
    try {
      const more: Record<string, string> = last === undefined ? {} : { "last-event-id": last };
      const response = await fetch(path, { headers: headers(more), signal, cache: "no-store" });
      if (response.status === 204) return;
      if (!response.ok) {
        const refusal = refusalOf(response.status, await response.text());
        if (response.status < 500 && response.status !== 429) throw refusal;
      } else if (response.body) {
        handlers.standing?.(true);
        wait = RETRY_FIRST;
        const parser = createParser({
          onEvent: (event) => {
            if (event.id !== undefined) last = event.id;
            handlers.event(event);
          },
        });
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let piece = await reader.read(); !piece.done; piece = await reader.read()) parser.feed(piece.value);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Error && "kind" in error) return;
    }
    handlers.standing?.(false);
    await pause(wait, signal);
    wait = Math.min(wait * 2, RETRY_MAX);
  }
}
