// A new job: a video, a style, and what the result is like.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, Refusal, upload } from "./api";
import { bytes } from "./format";
import { jobHref } from "./location";
import { failed, notice } from "./notices";
import { may } from "./session";
import type { JobRequest, Route, Style } from "./types";
import { Empty, Meter, sheetPath, usePicture, useStyles } from "./ui";

export function SubmitPage() {
  const [routes, setRoutes] = useState<Route[] | null>(null);
  const styles = useStyles();
  useEffect(() => {
    api.routes().then(setRoutes, failed);
  }, []);
  if (!may("submit")) return <Empty title="This token may look only." />;
  if (!routes || !styles) return <div class="rows loading" aria-busy="true" />;
  if (routes.length === 0) return <Empty title="There is no route to send a video to." />;
  return <Form routes={routes} styles={styles} />;
}

const CODECS = ["h264", "hevc", "vp9", "av1", "ffv1", "prores", "mjpeg", "utvideo"];
const text = (form: FormData, name: string) => String(form.get(name) ?? "").trim();
const number = (form: FormData, name: string) => (text(form, name) === "" ? undefined : Number(text(form, name)));

function requestOf(form: FormData, route: Route, input: string, style: string): JobRequest {
  const options: JobRequest["options"] = {};
  const [size, crf, priority] = [number(form, "size"), number(form, "crf"), number(form, "priority")];
  if (size !== undefined) options.size = size;
  if (crf !== undefined) options.crf = crf;
  if (text(form, "codec")) options.codec = text(form, "codec");
  if (text(form, "preset")) options.preset = text(form, "preset");
  if (form.get("conceal")) options.conceal = true;
  const request: JobRequest = { route: route.name, input, style, options };
  if (text(form, "output")) request.output = text(form, "output");
  if (priority !== undefined) request.priority = priority;
  return request;
}

/** An id that says what it is, and that nobody had before. */
function freshId(input: string): string {
  const stem = (input.split("/").pop() ?? input).replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9_-]+/g, "-");
  const random = crypto.getRandomValues(new Uint8Array(4));
  return `${stem.slice(0, 40) || "job"}-${[...random].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
}

function Form({ routes, styles }: { routes: Route[]; styles: Style[] }) {
  const [name, setName] = useState(routes[0]!.name);
  const route = routes.find((one) => one.name === name) ?? routes[0]!;
  const [style, setStyle] = useState<string | null>(null);
  const [file, setFile] = useState<File | null>(null);
  const [there, setThere] = useState(false);
  const [share, setShare] = useState<number | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  const sending = useRef<AbortController | null>(null);
  const chosen = style ?? route.style;
  const busy = share !== null;
  useEffect(() => () => sending.current?.abort(), []);

  const submit = async (event: Event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const input = there ? text(form, "key") : (file?.name ?? "");
    setTrouble(null);
    if (!input) return setTrouble(there ? "Name a video that lies in the route's input." : "Choose a video.");
    setShare(0);
    try {
      if (!there && file) {
        sending.current = new AbortController();
        await upload(route.name, input, file, setShare, sending.current.signal);
      }
      const job = await api.create(freshId(input), route.tenant, requestOf(form, route, input, chosen));
      notice(`${job.id} is accepted`);
      location.hash = jobHref(job);
    } catch (error) {
      setTrouble(error instanceof Refusal ? error.message : String(error));
    }
    setShare(null);
  };
  return (
    <form class="submit" onSubmit={submit} aria-busy={busy}>
      <div class="heading">
        <h1>New job</h1>
      </div>
      <fieldset class="card" disabled={busy}>
        <legend>Video</legend>
        {routes.length > 1 && (
          <label>
            Route
            <select value={name} onChange={(event) => setName(event.currentTarget.value)}>
              {routes.map((one) => (
                <option key={one.name} value={one.name}>
                  {one.name} ({one.tenant})
                </option>
              ))}
            </select>
          </label>
        )}
        {there ? (
          <label>
            Name inside <code>{route.input}</code>
            <input name="key" placeholder="folder/clip.mp4" autocomplete="off" />
          </label>
        ) : (
          <FileField file={file} choose={setFile} />
        )}
        <label class="inline">
          <input type="checkbox" checked={there} onChange={(event) => setThere(event.currentTarget.checked)} /> The video
          is in the route's input already
        </label>
      </fieldset>
      <Gallery styles={styles} chosen={chosen} choose={setStyle} busy={busy} usual={route.style} />
      <Options busy={busy} />
      {trouble && (
        <p class="error" role="alert">
          {trouble}
        </p>
      )}
      <div class="send">
        <button class="primary" disabled={busy}>
          Style it
        </button>
        {busy && (
          <div class="upload">
            <Meter percent={share * 100} label="Upload" state="running" />
            <span class="number" role="status">
              {share < 1 && file ? `${Math.floor(share * 100)} % of ${bytes(file.size)}` : "Asking for the job…"}
            </span>
            <button type="button" onClick={() => sending.current?.abort()}>
              Stop
            </button>
          </div>
        )}
      </div>
    </form>
  );
}

function FileField({ file, choose }: { file: File | null; choose: (file: File | null) => void }) {
  const [over, setOver] = useState(false);
  const hover = (event: DragEvent, is: boolean) => {
    event.preventDefault();
    setOver(is);
  };
  return (
    <label
      class={over ? "drop over" : "drop"}
      onDragOver={(event) => hover(event, true)}
      onDragLeave={(event) => hover(event, false)}
      onDrop={(event) => {
        hover(event, false);
        choose(event.dataTransfer?.files[0] ?? null);
      }}
    >
      <input
        type="file"
        name="file"
        accept="video/*,.mkv,.ts,.y4m"
        onChange={(event) => choose(event.currentTarget.files?.[0] ?? null)}
      />
      <svg viewBox="0 0 24 24" width="28" height="28" aria-hidden="true">
        <path d="M12 16V4m0 0L7 9m5-5 5 5M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3" />
      </svg>
      {file ? (
        <span>
          <b>{file.name}</b> <small>{bytes(file.size)}</small>
        </span>
      ) : (
        <span>
          <b>Choose a video</b> or drop it here
        </span>
      )}
    </label>
  );
}

function Gallery(props: { styles: Style[]; chosen: string; choose: (name: string) => void; busy: boolean; usual: string }) {
  const { styles, chosen, choose } = props;
  const shown = styles.find((one) => one.name === chosen);
  return (
    <fieldset class="card" disabled={props.busy}>
      <legend>Style</legend>
      <div class="gallery">
        {styles.map((style) => (
          <label key={style.name} class="tile">
            <input
              type="radio"
              name="style"
              value={style.name}
              checked={style.name === chosen}
              onChange={() => choose(style.name)}
            />
            <Sheet style={style} />
            <span class="caption">
              <b>{style.name}</b>
              <small>{style.painting || (style.name === props.usual ? "the route's own" : "the operator's")}</small>
            </span>
          </label>
        ))}
      </div>
      {shown?.has_sheet && (
        <figure class="sheet">
          <Sheet style={shown} whole />
          <figcaption>The painting, and what {shown.name} makes of three pictures.</figcaption>
        </figure>
      )}
    </fieldset>
  );
}

function Sheet({ style, whole }: { style: Style; whole?: boolean }) {
  const source = usePicture(style.has_sheet ? sheetPath(style.name) : null);
  return (
    <span class={whole ? "picture whole" : "picture"}>
      {source ? (
        <img src={source} alt={whole ? `Contact sheet of ${style.name}` : ""} />
      ) : (
        <b aria-hidden="true">{style.name.slice(0, 1).toUpperCase()}</b>
      )}
    </span>
  );
}

function Options({ busy }: { busy: boolean }) {
  return (
    <fieldset class="card" disabled={busy}>
      <legend>Result</legend>
      <details>
        <summary>Options; what is left empty is the route's</summary>
        <div class="grid">
          <label>
            Output name
            <input name="output" placeholder="by the route's template" autocomplete="off" />
          </label>
          <label>
            Codec
            <select name="codec">
              <option value="">as usual</option>
              {CODECS.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <label>
            Quality (CRF)
            <input name="crf" type="number" min={0} max={63} step="any" placeholder="lower is better" />
          </label>
          <label>
            Encoder preset
            <input name="preset" placeholder="medium" pattern="[A-Za-z0-9_-]{1,32}" autocomplete="off" />
          </label>
          <label>
            Scored at width
            <input name="size" type="number" min={16} max={7680} placeholder="pixels" />
          </label>
          <label>
            Priority
            <input name="priority" type="number" min={-1000} max={1000} placeholder="0" />
          </label>
        </div>
        <label class="inline">
          <input name="conceal" type="checkbox" /> Repeat the nearest good frame for damaged ones
        </label>
      </details>
    </fieldset>
  );
}
