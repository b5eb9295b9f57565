// The frame around every page.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { signOut } from "./api";
import { fps } from "./format";
import { JobsPage } from "./jobs";
import { JobPage } from "./job";
import { standing, summary } from "./live";
import { href, place } from "./location";
import { LoginPage } from "./login";
import { NodesPage } from "./nodes";
import { may, me, token, trouble } from "./session";
import { SubmitPage } from "./submit";
import { Notices } from "./notices";

export function App() {
  if (!me.value) return trouble.value === "none" ? <Waiting /> : <LoginPage />;
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <Header />
      <main id="main" tabIndex={-1}>
        <Page />
      </main>
      <footer class="foot">
        <a href="openapi.json">openapi.json</a>
        <span>restyle</span>
      </footer>
      <Notices />
    </>
  );
}

function skip(event: Event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Waiting() {
  return (
    <main class="centre" aria-busy="true">
      <p class="muted">Connecting…</p>
    </main>
  );
}

function Page() {
  const { path } = place.value;
  const [first, second, third] = path;
  const name = path.join("/");
  const previous = useRef(name);
  useEffect(() => {
    if (previous.current === name) return;
    previous.current = name;
    // As with a page of its own: reading begins at the top.
    window.scrollTo(0, 0);
    document.getElementById("main")?.focus({ preventScroll: true });
  }, [name]);
  if (first === "jobs" && second && third) return <JobPage key={`${second}/${third}`} tenant={second} id={third} />;
  if (first === "nodes") return <NodesPage />;
  if (first === "submit") return <SubmitPage />;
  return <JobsPage />;
}

function Header() {
  const first = place.value.path[0] ?? "jobs";
  const tab = (name: string, text: string) => (
    <a href={href([name])} aria-current={first === name ? "page" : undefined}>
      {text}
    </a>
  );
  return (
    <header class="top">
      <a class="brand" href={href(["jobs"])} aria-label="restyle, all jobs">
        <img src="icon.svg" alt="" width="28" height="28" />
        <span>restyle</span>
      </a>
      <nav aria-label="Pages">
        {tab("jobs", "Jobs")}
        {tab("nodes", "Nodes")}
        {may("submit") && tab("submit", "New job")}
      </nav>
      <Pulse />
      <Account />
    </header>
  );
}

/** The service in one line. */
function Pulse() {
  const now = summary.value;
  let text: ComponentChildren = "";
  let tone = "lost";
  if (!standing.value) text = "Reconnecting…";
  else if (now?.draining) text = "Ending";
  else if (now && now.jobs.running > 0) {
    tone = "busy";
    text = `${fps(now.fps)} · ${now.nodes.running} of ${now.nodes.max} nodes`;
  } else if (now) {
    tone = "idle";
    text = "Idle";
  }
  return (
    <p class={`pulse ${tone}`} role="status">
      <i aria-hidden="true" />
      {text}
    </p>
  );
}

function Account() {
  const who = me.value;
  if (!who) return null;
  return (
    <div class="account">
      <span title={who.tenant ? `tenant ${who.tenant}` : "all tenants"}>
        {who.name} <small>{who.role}</small>
      </span>
      {token.value && (
        <button class="quiet" onClick={() => signOut("token")}>
          Sign out
        </button>
      )}
    </div>
  );
}
