// Small parts that several pages are made of.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { api } from "./api";
import { ago, exactly } from "./format";
import type { Job, JobState, NodeState, Style } from "./types";

export function Badge({ state }: { state: JobState | NodeState }) {
  return <span class={`badge ${state}`}>{state}</span>;
}

/** A bar of how far something is; `null`: nobody knows. */
export function Meter({ percent, label, state }: { percent: number | null; label: string; state?: string }) {
  return (
    <div
      class={`meter ${state ?? ""} ${percent === null ? "unknown" : ""}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent === null ? undefined : Math.round(percent)}
    >
      <i style={{ width: `${percent ?? 0}%` }} />
    </div>
  );
}

export function Card(props: { title: string; id: string; aside?: ComponentChildren; children: ComponentChildren }) {
  return (
    <section class={`card ${props.id}`} aria-labelledby={`${props.id}-title`}>
      <header>
        <h2 id={`${props.id}-title`}>{props.title}</h2>
        {props.aside}
      </header>
      {props.children}
    </section>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <svg viewBox="0 0 64 40" width="96" height="60" aria-hidden="true">
        <path d="M6 30c9-18 16-18 24-8s14 9 28-12" />
        <path d="M6 14c7-9 14-9 20-4" />
      </svg>
      <p class="lead">{title}</p>
      {children}
    </div>
  );
}

export function Fact({ name, children, title }: { name: string; children: ComponentChildren; title?: string }) {
  return (
    <div title={title}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

const now = signal(Date.now());
setInterval(() => (now.value = Date.now()), 5000);

/** How long ago something was; exactly when in its tooltip. */
export function When({ at }: { at: string }) {
  return (
    <time dateTime={at} title={exactly(at)}>
      {ago(at, Math.max(now.value, Date.parse(at)))}
    </time>
  );
}

const styles = signal<Style[] | null>(null);
let asked = false;

/** The styles there are; asked for once. */
export function useStyles(): Style[] | null {
  useEffect(() => {
    if (asked) return;
    asked = true;
    api.styles().then(
      (all) => (styles.value = all),
      () => (asked = false),
    );
  }, []);
  return styles.value;
}

/** Pictures by their path: fetched with the token, kept while the page lives. */
const sheets = new Map<string, Promise<string>>();

export function usePicture(path: string | null): string | null {
  const [source, setSource] = useState<string | null>(null);
  useEffect(() => {
    setSource(null);
    if (!path) return;
    let wanted = true;
    let picture = sheets.get(path);
    if (!picture) {
      picture = api.picture(path).then((blob) => URL.createObjectURL(blob));
      picture.catch(() => sheets.delete(path));
      sheets.set(path, picture);
    }
    picture.then(
      (url) => wanted && setSource(url),
      () => undefined,
    );
    return () => {
      wanted = false;
    };
  }, [path]);
  return source;
}

export const sheetPath = (style: string) => `v1/styles/${encodeURIComponent(style)}/sheet`;

/** A style as a small square of its painting. */
export function Swatch({ style }: { style: string }) {
  const known = useStyles()?.find((one) => one.name === style);
  const source = usePicture(known?.has_sheet ? sheetPath(style) : null);
  return (
    <span class="swatch" aria-hidden="true">
      {source ? <img src={source} alt="" /> : <b>{style.slice(0, 1).toUpperCase()}</b>}
    </span>
  );
}

/** What a job is doing, in a few words. */
export function doing(job: Job): string {
  if (job.state !== "running") return job.state;
  const words: Record<string, string> = {
    planning: "Looking at the source",
    scoring: "Styling frames",
    joining: "Joining segments",
    publishing: "Publishing",
  };
  return words[job.progress.phase] ?? job.progress.phase;
}

export function percentOf(job: Job): number | null {
  if (job.state === "queued" && job.progress.frames_done === 0) return 0;
  return job.progress.percent;
}
