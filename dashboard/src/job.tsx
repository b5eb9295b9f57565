// One job.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, jobPath, Refusal, type JobVerb } from "./api";
import { Compare } from "./compare";
import { bytes, count, duration, exactly, fps } from "./format";
import { nodes, onJob, standing } from "./live";
import { href } from "./location";
import { Log } from "./log";
import { NodeRow } from "./nodes";
import { failed, notice } from "./notices";
import { Pipeline } from "./pipeline";
import { may, token } from "./session";
import type { FrameStrip, Job, Link } from "./types";
import { Badge, Card, doing, Empty, Fact, Meter, percentOf, Swatch, When } from "./ui";

/** How often frames and hand-offs of a running job are asked for. */
const LOOK = 1000;

type Which = { tenant: string; id: string };

export function JobPage({ tenant, id }: Which) {
  const [job, setJob] = useState<Job | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  /** Counts what the stream told of the job. */
  const told = useRef(0);
  const ask = async () => {
    try {
      let before: number;
      let now: Job;
      do {
        before = told.current;
        now = await api.job({ tenant, id });
        // What the stream told meanwhile may be newer than the answer.
      } while (before !== told.current);
      setJob(now);
    } catch (error) {
      setTrouble(error instanceof Refusal ? error.message : String(error));
    }
  };
  useEffect(() => {
    void ask();
    return onJob((one) => {
      if (one.id !== id || one.tenant !== tenant) return;
      told.current += 1;
      setJob(one);
    });
  }, [tenant, id, standing.value]);
  useEffect(() => {
    document.title = job ? `${job.id} · ${job.state} · restyle` : "restyle";
    return () => {
      document.title = "restyle";
    };
  }, [job?.id, job?.state]);
  if (!job) return trouble ? <Empty title={trouble} /> : <div class="rows loading" aria-busy="true" />;
  return <Shown job={job} changed={ask} />;
}

function Shown({ job, changed }: { job: Job; changed: () => Promise<void> }) {
  const { strip, links } = useFrames(job);
  const own = nodes.value.filter((node) => node.job === job.id && node.tenant === job.tenant);
  return (
    <>
      <p class="crumb">
        <a href={href(["jobs"])}>Jobs</a> <span aria-hidden="true">/</span> {job.route}
      </p>
      <div class="heading job">
        <Swatch style={job.style} />
        <div>
          <h1>
            {job.id} <Badge state={job.state} />
          </h1>
          <p class="sub">
            <span>{job.style}</span>
            <span class="file">
              {job.input} → {job.output}
            </span>
          </p>
        </div>
        <Actions job={job} changed={changed} />
      </div>
      {job.error && <Failure job={job} />}
      {job.warnings.length > 0 && (
        <ul class="warnings" aria-label="Warnings">
          {job.warnings.map((text) => (
            <li key={text}>{text}</li>
          ))}
        </ul>
      )}
      <Card title="Progress" id="progress" aside={<span class="muted">{job.state === "running" && doing(job)}</span>}>
        <Facts job={job} />
        <Pipeline job={job} links={links} nodes={own} />
      </Card>
      <Compare job={job} strip={strip} />
      {own.length > 0 && (
        <Card title="Nodes" id="job-nodes" aside={<a href={href(["nodes"])}>All nodes</a>}>
          <ul class="nodes">
            {own.map((node) => (
              <NodeRow key={node.id} node={node} />
            ))}
          </ul>
        </Card>
      )}
      <Log job={job} />
    </>
  );
}

/** What frames have come to and where they wait, as long as that changes. */
function useFrames(job: Job): { strip: FrameStrip | null; links: Link[] } {
  const [strip, setStrip] = useState<FrameStrip | null>(null);
  const [links, setLinks] = useState<Link[]>([]);
  useEffect(() => {
    const which = { tenant: job.tenant, id: job.id };
    let wanted = true;
    let timer = 0;
    const look = async () => {
      const asked = await Promise.allSettled([api.frames(which), api.links(which)]);
      if (!wanted) return;
      if (asked[0].status === "fulfilled") setStrip(asked[0].value);
      if (asked[1].status === "fulfilled") setLinks(asked[1].value);
      if (job.state === "running") timer = window.setTimeout(look, LOOK);
    };
    void look();
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [job.tenant, job.id, job.state]);
  return { strip, links: job.state === "running" ? links : [] };
}

const VERBS: { verb: JobVerb; text: string; states: Job["state"][]; needs: "end" | "pause" }[] = [
  { verb: "pause", text: "Pause", states: ["running", "queued"], needs: "pause" },
  { verb: "resume", text: "Resume", states: ["paused"], needs: "pause" },
  { verb: "retry", text: "Try again", states: ["failed", "cancelled"], needs: "end" },
  { verb: "cancel", text: "Cancel", states: ["running", "queued", "paused"], needs: "end" },
];

function Actions({ job, changed }: { job: Job; changed: () => Promise<void> }) {
  const [busy, setBusy] = useState(false);
  useEffect(() => setBusy(false), [job.state]);
  const steer = async (verb: JobVerb) => {
    setBusy(true);
    try {
      await api.steer(job, verb);
      await changed();
      // A job that runs comes to rest in its own time.
      setTimeout(() => setBusy(false), 3000);
    } catch (error) {
      failed(error);
      setBusy(false);
    }
  };
  const possible = VERBS.filter(({ states, needs }) => states.includes(job.state) && may(needs));
  return (
    <div class="actions">
      {possible.map(({ verb, text }) => (
        <button key={verb} data-verb={verb} disabled={busy} onClick={() => steer(verb)}>
          {text}
        </button>
      ))}
      {job.state === "finished" && <Download job={job} />}
    </div>
  );
}

function Download({ job }: { job: Job }) {
  const [share, setShare] = useState<string | null>(null);
  const name = job.output.split("/").pop() ?? job.output;
  if (!token.value) {
    return (
      <a class="button primary" href={jobPath(job, "/output")} download={name}>
        Download
      </a>
    );
  }
  const fetched = async () => {
    setShare("Download…");
    try {
      await save(job, name, (said) => setShare(said));
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) failed(error);
    }
    setShare(null);
  };
  return (
    <button class="primary" disabled={share !== null} onClick={fetched}>
      {share ?? "Download"}
    </button>
  );
}

type Picker = (options: { suggestedName: string }) => Promise<FileSystemFileHandle>;

/** A link cannot carry the token: the bytes go straight to a file where the browser can, else through memory. */
async function save(job: Job, name: string, tell: (said: string) => void): Promise<void> {
  const pick = (window as { showSaveFilePicker?: Picker }).showSaveFilePicker;
  const file = pick ? await (await pick({ suggestedName: name })).createWritable() : null;
  const response = await api.output(job);
  const size = Number(response.headers.get("content-length") ?? 0);
  let done = 0;
  const counted = response.body!.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(piece, controller) {
        done += piece.length;
        tell(size > 0 ? `${Math.floor((done * 100) / size)} % of ${bytes(size)}` : bytes(done));
        controller.enqueue(piece);
      },
    }),
  );
  if (file) return counted.pipeTo(file).then(() => notice(`${name} is saved`));
  const address = URL.createObjectURL(await new Response(counted).blob());
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function Failure({ job }: { job: Job }) {
  const error = job.error!;
  return (
    <div class="failure" role="alert">
      <h2>
        Failed on attempt {job.attempts} <code>{error.kind}</code>
      </h2>
      <p>{error.message}</p>
      {error.frames.length > 0 && (
        <p class="muted">
          Frames {error.frames.slice(0, 20).join(", ")}
          {error.frames.length > 20 && ` and ${error.frames.length - 20} more`}
        </p>
      )}
    </div>
  );
}

function Facts({ job }: { job: Job }) {
  const { progress, cost, engine } = job;
  const percent = percentOf(job);
  const seconds = cost.node_seconds.dedicated + cost.node_seconds.low_priority;
  const elapsed =
    job.started_at && job.ended_at ? (Date.parse(job.ended_at) - Date.parse(job.started_at)) / 1000 : null;
  return (
    <div class="facts">
      <div class="whole">
        <p class="percent">{percent === null ? "–" : Math.floor(percent)}<small> %</small></p>
        <Meter percent={percent} label={`Progress of ${job.id}`} state={job.state} />
      </div>
      <dl>
        <Fact name="Frames">
          {count(progress.frames_done)}
          {progress.frames_about !== null && <small> of {count(progress.frames_about)}</small>}
        </Fact>
        {job.state === "running" ? (
          <>
            <Fact name="Speed">{fps(progress.fps)}</Fact>
            <Fact name="Time left">{progress.eta_seconds === null ? "–" : duration(progress.eta_seconds)}</Fact>
          </>
        ) : (
          elapsed !== null && <Fact name="Last attempt took">{duration(elapsed)}</Fact>
        )}
        <Fact name="Attempts">{job.attempts}</Fact>
        {progress.frames_reused > 0 && <Fact name="Re-used">{count(progress.frames_reused)}</Fact>}
        {progress.frames_redone > 0 && <Fact name="Re-done">{count(progress.frames_redone)}</Fact>}
        <Fact
          name="Node time"
          title={`${duration(cost.node_seconds.dedicated)} dedicated, ${duration(cost.node_seconds.low_priority)} low-priority`}
        >
          {seconds > 0 ? duration(seconds) : "–"}
        </Fact>
        {cost.price !== null && <Fact name="Cost so far">{cost.price.toFixed(cost.price < 1 ? 4 : 2)}</Fact>}
        {engine && (
          <Fact name="Picture" title={`${engine.encoder} on ${engine.device}`}>
            {engine.width} × {engine.height}
          </Fact>
        )}
        <Fact name={job.ended_at ? "Ended" : "Created"} title={exactly(job.ended_at ?? job.created_at)}>
          <When at={job.ended_at ?? job.created_at} />
        </Fact>
      </dl>
    </div>
  );
}
