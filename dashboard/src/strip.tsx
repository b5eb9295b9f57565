// The heat-strip: every frame of a job by what it has come to, from left to right.
import { useEffect, useRef } from "preact/hooks";
import { count } from "./format";
import type { FrameState, FrameStrip } from "./types";

const FRAME_STATES: { state: FrameState; text: string }[] = [
  { state: "planned", text: "planned" },
  { state: "decoding", text: "decoding" },
  { state: "scored", text: "scored" },
  { state: "encoded", text: "encoded" },
  { state: "redone", text: "re-done" },
];

/** Where a pixel holds several frames, the rarer state is drawn over the others. */
const ORDER: FrameState[] = ["planned", "encoded", "scored", "decoding", "redone"];

function totals(strip: FrameStrip): Record<FrameState, number> {
  const sums = { planned: 0, decoding: 0, scored: 0, encoded: 0, redone: 0 };
  for (const run of strip.runs) sums[run.state] += run.last - run.first + 1;
  return sums;
}

function stateOf(strip: FrameStrip, frame: number): string {
  const run = strip.runs.find((one) => one.first <= frame && frame <= one.last);
  return FRAME_STATES.find(({ state }) => state === run?.state)?.text ?? "";
}

export function Strip(props: { strip: FrameStrip; frame: number; choose: (frame: number) => void }) {
  const { strip, frame, choose } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const draw = () => paint(element, strip);
    draw();
    const watch = new ResizeObserver(draw);
    watch.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    return () => {
      watch.disconnect();
      scheme.removeEventListener("change", draw);
    };
  }, [strip]);
  const sums = totals(strip);
  const said = FRAME_STATES.filter(({ state }) => sums[state] > 0).map(({ state, text }) => `${count(sums[state])} ${text}`);
  return (
    <div class="strip">
      <div class="band">
        <canvas ref={canvas} role="img" aria-label={`${count(strip.frames)} frames: ${said.join(", ")}`} />
        <i class="mark" style={{ left: `${((frame + 0.5) * 100) / Math.max(1, strip.frames)}%` }} />
        <input
          type="range"
          min={0}
          max={Math.max(0, strip.frames - 1)}
          value={frame}
          aria-label="Frame to look at"
          aria-valuetext={`frame ${frame}, ${stateOf(strip, frame)}`}
          onInput={(event) => choose(event.currentTarget.valueAsNumber)}
        />
      </div>
      <ul class="legend">
        {FRAME_STATES.map(({ state, text }) => (
          <li key={state} class={sums[state] > 0 ? "" : "none"}>
            <i class={state} aria-hidden="true" />
            {text} <b>{count(sums[state])}</b>
          </li>
        ))}
      </ul>
    </div>
  );
}

function paint(element: HTMLCanvasElement, strip: FrameStrip): void {
  const scale = devicePixelRatio || 1;
  const [width, height] = [Math.round(element.clientWidth * scale), Math.round(element.clientHeight * scale)];
  if (width === 0 || height === 0) return;
  if (element.width !== width) element.width = width;
  if (element.height !== height) element.height = height;
  const context = element.getContext("2d");
  if (!context) return;
  const colours = getComputedStyle(element);
  context.clearRect(0, 0, width, height);
  const frames = Math.max(1, strip.frames);
  for (const state of ORDER) {
    context.fillStyle = colours.getPropertyValue(`--frame-${state}`).trim();
    for (const run of strip.runs) {
      if (run.state !== state) continue;
      const left = Math.floor((run.first * width) / frames);
      const right = Math.ceil(((run.last + 1) * width) / frames);
      context.fillRect(left, 0, Math.max(1, right - left), height);
    }
  }
}
