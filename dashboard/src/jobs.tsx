// The list of jobs.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, Refusal } from "./api";
import { count, duration, fps } from "./format";
import { onJob, standing, summary } from "./live";
import { href, jobHref, place } from "./location";
import { may, me } from "./session";
import { JOB_STATES, type Job, type Route } from "./types";
import { Badge, doing, Empty, Meter, percentOf, Swatch, When } from "./ui";

const PAGE = 25;
/** Several changes at once are one reason to ask again. */
const SETTLE = 250;

export function JobsPage() {
  const query = place.value.query;
  const [state, route] = [query.get("state") ?? "", query.get("route") ?? ""];
  return (
    <>
      <div class="heading">
        <h1>Jobs</h1>
        {may("submit") && (
          <a class="button primary" href={href(["submit"])}>
            New job
          </a>
        )}
      </div>
      <Filters state={state} route={route} />
      <List key={`${state}/${route}`} state={state} route={route} />
    </>
  );
}

function Filters({ state, route }: { state: string; route: string }) {
  const [routes, setRoutes] = useState<Route[]>([]);
  useEffect(() => {
    api.routes().then(setRoutes, () => undefined);
  }, []);
  const counts = summary.value?.jobs;
  const all = counts ? Object.values(counts).reduce((sum, one) => sum + one, 0) : null;
  const chip = (name: string, text: string, number: number | null) => (
    <a
      key={name}
      class={`chip ${name}`}
      href={href(["jobs"], { state: name, route })}
      aria-current={state === name ? "true" : undefined}
    >
      {text} {number !== null && <b>{count(number)}</b>}
    </a>
  );
  return (
    <div class="filters">
      <nav aria-label="Jobs by state">
        {chip("", "All", all)}
        {JOB_STATES.map((name) => chip(name, name[0]!.toUpperCase() + name.slice(1), counts?.[name] ?? null))}
      </nav>
      {routes.length > 1 && (
        <label class="inline">
          Route
          <select
            value={route}
            onChange={(event) => (location.hash = href(["jobs"], { state, route: event.currentTarget.value }))}
          >
            <option value="">All</option>
            {routes.map((one) => (
              <option key={one.name} value={one.name}>
                {one.name}
              </option>
            ))}
          </select>
        </label>
      )}
    </div>
  );
}

function List({ state, route }: { state: string; route: string }) {
  /** Where each page that was turned to begins. */
  const [cursors, setCursors] = useState<string[]>([""]);
  const [jobs, setJobs] = useState<Job[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  const shown = useRef<Job[]>([]);
  const cursor = cursors[cursors.length - 1]!;
  const counts = JSON.stringify(summary.value?.jobs ?? null);

  useEffect(() => {
    const asking = new AbortController();
    const ask = () => {
      const query: Record<string, string> = { limit: String(PAGE) };
      if (state) query.state = state;
      if (route) query.route = route;
      if (cursor) query.cursor = cursor;
      api.jobs(query, asking.signal).then(
        (page) => {
          shown.current = page.jobs;
          setJobs(page.jobs);
          setNext(page.next);
          setTrouble(null);
        },
        (error) => !asking.signal.aborted && error instanceof Refusal && setTrouble(error.message),
      );
    };
    const timer = setTimeout(ask, shown.current.length > 0 ? SETTLE : 0);
    return () => {
      clearTimeout(timer);
      asking.abort();
    };
  }, [state, route, cursor, counts, standing.value]);

  useEffect(
    () =>
      onJob((job) => {
        const at = shown.current.findIndex((one) => one.id === job.id && one.tenant === job.tenant);
        if (at < 0) return;
        shown.current = shown.current.with(at, job);
        setJobs(shown.current);
      }),
    [],
  );

  if (trouble && !jobs) return <Empty title={trouble} />;
  if (!jobs) return <div class="rows loading" aria-busy="true" />;
  if (jobs.length === 0 && cursors.length === 1) return <Nothing state={state} />;
  return (
    <>
      <ul class="rows" aria-label={state ? `Jobs that are ${state}` : "Jobs, newest first"}>
        {jobs.map((job) => (
          <Row key={`${job.tenant}/${job.id}`} job={job} />
        ))}
      </ul>
      {(cursors.length > 1 || next) && (
        <nav class="pager" aria-label="Pages of the list">
          <button disabled={cursors.length === 1} onClick={() => setCursors(cursors.slice(0, -1))}>
            ← Newer
          </button>
          <span>Page {cursors.length}</span>
          <button disabled={!next} onClick={() => next && setCursors([...cursors, next])}>
            Older →
          </button>
        </nav>
      )}
    </>
  );
}

function Nothing({ state }: { state: string }) {
  if (state) {
    return (
      <Empty title={`No job is ${state}.`}>
        <a href={href(["jobs"])}>Show all jobs</a>
      </Empty>
    );
  }
  return (
    <Empty title="Nothing has arrived yet.">
      <p class="muted">Copy a video into the input of a route{may("submit") && ", or send one from here"}.</p>
      {may("submit") && (
        <a class="button primary" href={href(["submit"])}>
          New job
        </a>
      )}
    </Empty>
  );
}

function Row({ job }: { job: Job }) {
  return (
    <li class={`row ${job.state}`}>
      <Swatch style={job.style} />
      <div class="what">
        <a class="name" href={jobHref(job)}>
          {job.id}
        </a>
        <p class="sub">
          <span>{job.style}</span>
          <span class="file">{job.input}</span>
          {me.value?.tenant === null && job.tenant !== "default" && <span>{job.tenant}</span>}
          <When at={job.ended_at ?? job.created_at} />
        </p>
        {job.state === "failed" && job.error && <p class="why">{job.error.message}</p>}
      </div>
      <Far job={job} />
      <Badge state={job.state} />
    </li>
  );
}

function Far({ job }: { job: Job }) {
  const { progress } = job;
  const running = job.state === "running";
  if (!running && progress.frames_done === 0) {
    return <p class="far muted">{job.state === "queued" ? "Waits for its turn" : ""}</p>;
  }
  return (
    <div class="far">
      <Meter percent={percentOf(job)} label={`Progress of ${job.id}`} state={job.state} />
      <p class="sub">
        <span class="number">{progress.percent === null ? doing(job) : `${Math.floor(progress.percent)} %`}</span>
        {running && progress.fps > 0 && <span class="number">{fps(progress.fps)}</span>}
        {running && progress.eta_seconds !== null && <span class="number">{duration(progress.eta_seconds)} left</span>}
        {!running && progress.frames_about !== null && (
          <span class="number">{count(progress.frames_about)} frames</span>
        )}
        {job.attempts > 1 && <span class="number">attempt {job.attempts}</span>}
      </p>
    </div>
  );
}
