import { render } from "preact";
import { App } from "./app";
import "./app.css";
import { begin } from "./live";

const root = document.getElementById("app");
if (root) render(<App />, root);
void begin();
