// The scorer nodes of all running jobs.
import { useState } from "preact/hooks";
import { api, type NodeVerb } from "./api";
import { count } from "./format";
import { nodes, summary } from "./live";
import { jobHref } from "./location";
import { failed, notice } from "./notices";
import { may } from "./session";
import type { Node } from "./types";
import { Badge, Empty, When } from "./ui";

export function NodesPage() {
  const all = nodes.value;
  const totals = summary.value?.nodes;
  const jobs = new Map<string, Node[]>();
  for (const node of all) {
    const key = `${node.tenant}/${node.job}`;
    jobs.set(key, [...(jobs.get(key) ?? []), node]);
  }
  const idle = summary.value?.idle_since;
  return (
    <>
      <div class="heading">
        <h1>Nodes</h1>
        {totals && (
          <p class="sub" role="status">
            <span>
              {totals.running} of {totals.max} work
            </span>
            {totals.wanted > 0 && <span>{totals.wanted} more wanted</span>}
          </p>
        )}
      </div>
      {all.length === 0 && (
        <Empty title="No node is up.">
          <p class="muted">
            Nodes start when work arrives; an idle service holds none.{" "}
            {idle && (
              <>
                Idle since <When at={idle} />.
              </>
            )}
          </p>
        </Empty>
      )}
      {[...jobs].map(([key, own]) => (
        <section key={key} class="card" aria-label={`Nodes of ${own[0]!.job}`}>
          <header>
            <h2>
              <a href={jobHref({ tenant: own[0]!.tenant, id: own[0]!.job })}>{own[0]!.job}</a>
            </h2>
          </header>
          <ul class="nodes">
            {own.map((node) => (
              <NodeRow key={node.id} node={node} />
            ))}
          </ul>
        </section>
      ))}
    </>
  );
}

const SAID: Record<NodeVerb, string> = {
  preempt: "has notice: others take over its frames",
  drain: "finishes what it has and waits",
  resume: "works again",
};

/** Seconds that a node has to finish, as a cloud would give it. */
const NOTICE_SECONDS = 30;

export function NodeRow({ node }: { node: Node }) {
  const [busy, setBusy] = useState(false);
  const name = node.id.split("/").pop() ?? node.id;
  const order = async (verb: NodeVerb) => {
    setBusy(true);
    try {
      await api.order(node.id, verb, verb === "preempt" ? { notice_seconds: NOTICE_SECONDS } : undefined);
      notice(`${name} ${SAID[verb]}`);
    } catch (error) {
      failed(error);
    }
    setBusy(false);
  };
  const works = node.state === "running" || node.state === "starting";
  const away = node.state === "paused" || node.state === "preempted";
  const button = (verb: NodeVerb, text: string) => (
    <button data-verb={verb} disabled={busy} aria-label={`${text} ${name}`} onClick={() => order(verb)}>
      {text}
    </button>
  );
  return (
    <li class={`node ${node.state}`}>
      <div class="what">
        <b class="name">{name}</b>
        <p class="sub">
          <span>{node.device}</span>
          <span>{node.class}</span>
        </p>
      </div>
      <div class="state">
        <Badge state={node.state} />
        <small>
          <When at={node.since} />
        </small>
      </div>
      <dl>
        <div>
          <dt>Frames</dt>
          <dd>{count(node.items_done)}</dd>
        </div>
        <div>
          <dt>Pre-empted</dt>
          <dd>{node.preemptions}</dd>
        </div>
        <div>
          <dt>Restarted</dt>
          <dd>{node.restarts}</dd>
        </div>
      </dl>
      <div class="actions">
        {may("steer") && works && button("preempt", "Preempt")}
        {may("steer") && works && button("drain", "Drain")}
        {may("steer") && away && button("resume", "Resume")}
      </div>
      {node.last_error && <p class="why">{node.last_error}</p>}
      {node.log.length > 0 && (
        <details open={node.state === "unusable"}>
          <summary>Log of {name}</summary>
          <ol class="lines">
            {node.log.map((line, k) => (
              <li key={k}>{line}</li>
            ))}
          </ol>
        </details>
      )}
    </li>
  );
}
