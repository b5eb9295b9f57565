// Who is looking. The token is kept for this tab alone and is sent as a header, never in an address.
import { signal } from "@preact/signals";
import type { Me, Role } from "./types";

const KEY = "restyle-token";

export const token = signal<string | null>(sessionStorage.getItem(KEY));
export const me = signal<Me | null>(null);
/** Why there is no session: nothing known yet, a token is wanted, or the service cannot be reached. */
export const trouble = signal<"none" | "token" | "refused" | "unreachable">("none");

export function keepToken(value: string | null): void {
  if (value === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, value);
  token.value = value;
}

const RANK: Record<Role, number> = { viewer: 0, submitter: 1, operator: 2, admin: 3 };

export function may(action: "submit" | "end" | "pause" | "steer"): boolean {
  const rank = me.value ? RANK[me.value.role] : -1;
  return rank >= (action === "submit" || action === "end" ? RANK.submitter : RANK.operator);
}
