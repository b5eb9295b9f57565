// One frame before and after styling, and the strip that chooses it.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, jobPath, Refusal } from "./api";
import { Strip } from "./strip";
import type { FrameStrip, Job } from "./types";
import { Card } from "./ui";

/** Frames are decoded for this: while somebody still chooses, nothing is asked for. */
const SETTLE = 300;
const WIDTH = 960;

interface Side {
  url: string | null;
  why: string | null;
  busy: boolean;
}

const NOTHING: Side = { url: null, why: null, busy: true };

export function Compare({ job, strip }: { job: Job; strip: FrameStrip | null }) {
  const [chosen, setChosen] = useState<number | null>(null);
  const frame = Math.min(chosen ?? 0, Math.max(0, (strip?.frames ?? 1) - 1));
  const worth = first(strip);
  // Once: a picture that somebody looks at stays.
  useEffect(() => {
    if (chosen === null && worth !== null) setChosen(worth);
  }, [chosen, worth]);
  const done = styled(strip, frame);
  // A frame that was not styled yet is looked at again once it is.
  const before = useSide(job, frame, "before", strip !== null && strip.frames > 0, "");
  const after = useSide(job, frame, "after", strip !== null && strip.frames > 0, String(done));
  if (!strip || strip.frames === 0) {
    return (
      <Card title="Frames" id="frames">
        <p class="muted">The source is not looked at yet.</p>
      </Card>
    );
  }
  return (
    <Card title="Frames" id="frames" aside={<span class="muted number">frame {frame}</span>}>
      <Slider before={before} after={after} job={job} />
      <Strip strip={strip} frame={frame} choose={setChosen} />
    </Card>
  );
}

/** The first frame worth a look: a third into what is finished. */
function first(strip: FrameStrip | null): number | null {
  const run = strip?.runs.find((one) => one.state === "encoded" || one.state === "redone");
  return run ? Math.floor(run.first + (run.last - run.first) / 3) : null;
}

function styled(strip: FrameStrip | null, frame: number): boolean {
  const run = strip?.runs.find((one) => one.first <= frame && frame <= one.last);
  return run?.state === "encoded" || run?.state === "redone";
}

function useSide(job: Job, frame: number, side: "before" | "after", wanted: boolean, again: string): Side {
  const [shown, setShown] = useState<Side>(NOTHING);
  const last = useRef<string | null>(null);
  const ended = job.ended_at ?? "";
  useEffect(() => {
    if (!wanted) return;
    const asking = new AbortController();
    setShown((old) => ({ ...old, busy: true }));
    const ask = async () => {
      const path = `${jobPath(job, "/preview")}&frame=${frame}&side=${side}&width=${WIDTH}`;
      try {
        const url = URL.createObjectURL(await api.picture(path, asking.signal));
        if (last.current) URL.revokeObjectURL(last.current);
        last.current = url;
        setShown({ url, why: null, busy: false });
      } catch (error) {
        if (asking.signal.aborted) return;
        const missing = error instanceof Refusal && error.status === 404;
        const why = missing && side === "after" ? "Not styled yet" : error instanceof Error ? error.message : "";
        setShown({ url: null, why, busy: false });
      }
    };
    const timer = setTimeout(ask, SETTLE);
    return () => {
      clearTimeout(timer);
      asking.abort();
    };
  }, [job.tenant, job.id, frame, side, wanted, again, ended]);
  return shown;
}

function Slider({ before, after, job }: { before: Side; after: Side; job: Job }) {
  const [split, setSplit] = useState(50);
  const engine = job.engine;
  const shape = engine ? { "--ratio": String(engine.width / engine.height) } : {};
  return (
    <div class={before.busy || after.busy ? "compare busy" : "compare"} style={shape}>
      {before.url ? <img src={before.url} alt="The frame as it came" /> : <p class="why">{before.why ?? "…"}</p>}
      <div class="after" style={{ clipPath: `inset(0 0 0 ${split}%)` }}>
        {after.url ? <img src={after.url} alt="The frame as it was styled" /> : <p class="why">{after.why ?? "…"}</p>}
      </div>
      <span class="tag left" aria-hidden="true">before</span>
      <span class="tag right" aria-hidden="true">after</span>
      <i class="handle" style={{ left: `${split}%` }} aria-hidden="true" />
      <input
        type="range"
        min={0}
        max={100}
        value={split}
        aria-label="Border between before and after"
        aria-valuetext={`${split} % before`}
        onInput={(event) => setSplit(event.currentTarget.valueAsNumber)}
      />
    </div>
  );
}
