// The shapes of the public API, as openapi.json describes them.

export type JobState = "queued" | "running" | "paused" | "finished" | "failed" | "cancelled";
export const JOB_STATES: JobState[] = ["running", "queued", "paused", "finished", "failed", "cancelled"];

export interface Progress {
  frames_done: number;
  frames_about: number | null;
  frames_reused: number;
  frames_redone: number;
  fps: number;
  eta_seconds: number | null;
  phase: string;
  percent: number | null;
}

export interface Job {
  id: string;
  tenant: string;
  route: string;
  state: JobState;
  input: string;
  output: string;
  style: string;
  priority: number;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  attempts: number;
  progress: Progress;
  error: { kind: string; message: string; frames: number[] } | null;
  warnings: string[];
  cost: { node_seconds: { dedicated: number; low_priority: number }; price: number | null };
  job: string | null;
  engine: { device: string; encoder: string; width: number; height: number; workers: number } | null;
}

export interface JobPage {
  jobs: Job[];
  next: string | null;
}

export type NodeState =
  | "starting"
  | "running"
  | "draining"
  | "preempted"
  | "restarting"
  | "paused"
  | "unusable"
  | "ended"
  | "wanted";

export interface Node {
  id: string;
  job: string;
  tenant: string;
  device: string;
  class: string;
  state: NodeState;
  generation: number;
  items_done: number;
  preemptions: number;
  restarts: number;
  since: string;
  last_error: string | null;
  log: string[];
}

export interface Summary {
  jobs: Record<JobState, number>;
  nodes: { running: number; wanted: number; min: number; max: number };
  fps: number;
  idle_since: string | null;
  draining: boolean;
}

export type FrameState = "planned" | "decoding" | "scored" | "encoded" | "redone";

export interface FrameStrip {
  frames: number;
  runs: { first: number; last: number; state: FrameState }[];
}

export interface Link {
  name: string;
  fill: number;
  capacity: number;
  in: number;
  out: number;
  stall_micros: number;
}

export interface Route {
  name: string;
  tenant: string;
  input: string;
  output: string;
  style: string;
  name_template: string;
  priority: number;
  error: string | null;
  queued: number;
  running: number;
}

export interface Style {
  name: string;
  painting: string;
  origin: string;
  digest: string | null;
  has_sheet: boolean;
}

export type Role = "viewer" | "submitter" | "operator" | "admin";

export interface Me {
  name: string;
  role: Role;
  tenant: string | null;
  expires_at: string | null;
}

export interface JobRequest {
  route?: string;
  input: string;
  style?: string;
  output?: string;
  priority?: number;
  options?: { size?: number; codec?: string; crf?: number; preset?: string; conceal?: boolean };
}
