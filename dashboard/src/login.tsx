// Signing in with a token, where the service wants one.
import { useState } from "preact/hooks";
import { begin } from "./live";
import { keepToken, trouble } from "./session";

export function LoginPage() {
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const reason = trouble.value;
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    keepToken(text.trim());
    trouble.value = "none";
    await begin();
    setBusy(false);
  };
  return (
    <main class="centre">
      <form class="card login" onSubmit={submit}>
        <img src="icon.svg" alt="" width="48" height="48" />
        <h1>restyle</h1>
        {reason === "unreachable" ? (
          <p role="alert">The service cannot be reached. Trying again…</p>
        ) : (
          <>
            <p class="muted">This service asks for a token. It is kept for this tab only.</p>
            <label>
              Token
              <input
                type="password"
                name="token"
                autocomplete="current-password"
                placeholder="rst_…"
                required
                value={text}
                aria-describedby={reason === "refused" ? "refused" : undefined}
                onInput={(event) => setText(event.currentTarget.value)}
              />
            </label>
            {reason === "refused" && (
              <p class="error" id="refused" role="alert">
                That token is not accepted: it is unknown, has ended or was revoked.
              </p>
            )}
            <button class="primary" disabled={busy}>
              Sign in
            </button>
          </>
        )}
      </form>
    </main>
  );
}
