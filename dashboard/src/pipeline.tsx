// The stages of a job, and how full the hand-offs between them are.
import { Fragment } from "preact";
import { count, duration } from "./format";
import type { Job, Link, Node } from "./types";

const WORKING = ["starting", "running", "draining"];

export function Pipeline({ job, links, nodes }: { job: Job; links: Link[]; nodes: Node[] }) {
  const running = job.state === "running";
  const phase = running ? job.progress.phase : "";
  const working = nodes.filter((node) => WORKING.includes(node.state)).length;
  const scoring = phase === "scoring";
  const stages = [
    { name: "Decode", note: links[0] && scoring ? `${count(links[0].in)} frames` : "", on: scoring },
    { name: "Score", note: scoring && nodes.length > 0 ? `${working} of ${nodes.length} nodes` : "", on: scoring },
    { name: "Encode", note: links[1] && scoring ? `${count(links[1].out)} frames` : "", on: scoring },
    { name: "Publish", note: phase === "joining" ? "joining" : "", on: phase === "joining" || phase === "publishing" },
  ];
  return (
    <ol class="pipeline" aria-label="Pipeline">
      {stages.map((stage, k) => (
        <Fragment key={stage.name}>
          <li class={stage.on ? "stage on" : job.state === "finished" ? "stage done" : "stage"}>
            <b>{stage.name}</b>
            <small>{stage.note || " "}</small>
          </li>
          {k < stages.length - 1 && <HandOff link={scoring ? links[k] : undefined} />}
        </Fragment>
      ))}
    </ol>
  );
}

/** Twelve cells at most: a hand-off of a hundred frames is read as well as one of eight. */
const CELLS = 12;

function HandOff({ link }: { link: Link | undefined }) {
  if (!link || link.capacity === 0) return <li class="hand-off none" aria-hidden="true" />;
  const cells = Math.min(link.capacity, CELLS);
  const full = Math.min(cells, Math.ceil((link.fill * cells) / link.capacity));
  const text = `${link.name}: ${link.fill} of ${link.capacity} frames wait`;
  const stalled = link.stall_micros / 1e6;
  return (
    <li class="hand-off" title={`${text}${stalled >= 1 ? `; waited ${duration(stalled)} for room` : ""}`}>
      <span class="cells" role="meter" aria-label={text} aria-valuemin={0} aria-valuemax={link.capacity} aria-valuenow={link.fill}>
        {Array.from({ length: cells }, (_, k) => (
          <i key={k} class={k < full ? "full" : ""} />
        ))}
      </span>
      <small>
        {link.fill} / {link.capacity}
      </small>
    </li>
  );
}
