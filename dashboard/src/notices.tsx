// Short messages about what was just done, also read aloud.
import { signal } from "@preact/signals";

interface Notice {
  id: number;
  text: string;
  bad: boolean;
}

const shown = signal<Notice[]>([]);
let next = 1;

export function notice(text: string, bad = false): void {
  const id = next++;
  shown.value = [...shown.value.slice(-3), { id, text, bad }];
  setTimeout(() => dismiss(id), bad ? 12_000 : 5000);
}

function dismiss(id: number): void {
  shown.value = shown.value.filter((one) => one.id !== id);
}

export const failed = (error: unknown) => notice(error instanceof Error ? error.message : String(error), true);

export function Notices() {
  return (
    <div class="notices" role="status" aria-live="polite">
      {shown.value.map((one) => (
        <div key={one.id} class={one.bad ? "notice bad" : "notice"}>
          <span>{one.text}</span>
          <button class="quiet" aria-label="Dismiss" onClick={() => dismiss(one.id)}>
            ×
          </button>
        </div>
      ))}
    </div>
  );
}
