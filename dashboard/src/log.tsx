// The end of a job's log, as it is written.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { jobPath } from "./api";
import { count, duration, fps } from "./format";
import { follow } from "./stream";
import type { Job } from "./types";
import { Card } from "./ui";

const LINES = 300;

interface Line {
  id: string;
  kind: string;
  text: string;
}

export function Log({ job }: { job: Job }) {
  const [lines, setLines] = useState<Line[]>([]);
  const [all, setAll] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  const over = ["finished", "failed", "cancelled"].includes(job.state);
  useEffect(() => {
    const reading = new AbortController();
    let kept: Line[] = [];
    let due = 0;
    const show = () => {
      due = 0;
      setLines(kept);
    };
    const event = ({ id, event: kind, data }: { id?: string; event?: string; data: string }) => {
      kept = [...kept, { id: id ?? "", kind: kind ?? "", text: words(kind ?? "", JSON.parse(data)) }].slice(-LINES);
      // A replay of thousands is drawn once.
      due ||= window.setTimeout(show, 60);
    };
    void follow(jobPath(job, "/events"), { event }, reading.signal);
    return () => {
      reading.abort();
      clearTimeout(due);
    };
    // A job that goes on after its end has a new stream.
  }, [job.tenant, job.id, over]);
  const shown = all ? lines : lines.filter((line) => line.kind !== "progress");
  useLayoutEffect(() => {
    const element = box.current;
    if (element && atEnd.current) element.scrollTop = element.scrollHeight;
  }, [shown.length, all]);
  return (
    <Card
      title="Log"
      id="log"
      aside={
        <label class="inline">
          <input type="checkbox" checked={all} onChange={(event) => setAll(event.currentTarget.checked)} /> progress too
        </label>
      }
    >
      <div
        class="scroll"
        role="log"
        aria-label="Log"
        tabIndex={0}
        ref={box}
        onScroll={(event) => {
          const element = event.currentTarget;
          atEnd.current = element.scrollHeight - element.scrollTop - element.clientHeight < 24;
        }}
      >
        <ol class="lines">
          {shown.map((line) => (
            <li key={line.id} class={`is-${line.kind}`}>
              <span class="number">{line.id}</span> <b>{line.kind}</b> <span>{line.text}</span>
            </li>
          ))}
          {shown.length === 0 && <li class="muted">Nothing has happened yet.</li>}
        </ol>
      </div>
    </Card>
  );
}

/** An event in a few words; what is not known is shown as it came. */
function words(kind: string, data: any): string {
  switch (kind) {
    case "state":
      return `${data.state}${data.attempts > 0 ? `, attempt ${data.attempts}` : ""}`;
    case "planned":
      return `${data.frames_about === null ? "frames not known" : `about ${count(data.frames_about)} frames`}, ${data.workers} nodes on ${data.device}, ${data.encoder}${data.frames_reused > 0 ? `, ${count(data.frames_reused)} frames re-used` : ""}`;
    case "progress":
      return `${count(data.frames_done)} frames, ${fps(data.fps)}, ${data.phase}`;
    case "warning":
      return data.message;
    case "node":
      return `${data.node} ${change(data.what)}`;
    case "finished":
      return `${count(data.frames)} frames in ${duration(data.wall_seconds)}: ${count(data.frames_scored)} scored, ${count(data.frames_reused)} re-used, ${count(data.frames_rescored)} re-done`;
    case "failed":
      return `${data.kind}: ${data.message}`;
    default:
      return JSON.stringify(data);
  }
}

function change(what: any): string {
  if (what === "notified") return "will be taken away";
  if (typeof what === "string") return what;
  if (what.started) return what.started.generation > 0 ? `started again, generation ${what.started.generation}` : "started";
  if (what.exited) return `ended: ${what.exited.reason}`;
  if (what.returning) return `comes back in ${duration(what.returning.after_millis / 1000)}`;
  if (what.given_up) return `given up: ${what.given_up.reason}`;
  return JSON.stringify(what);
}
