// Builds dist/: one script, one stylesheet, one font, one icon and the page that names them. `--watch` builds again at every change.
import * as esbuild from "esbuild";
import { copyFileSync, mkdirSync, rmSync } from "node:fs";

const watching = process.argv.includes("--watch");
if (!watching) rmSync("dist", { recursive: true, force: true });
mkdirSync("dist", { recursive: true });
for (const name of ["index.html", "icon.svg"]) copyFileSync(`public/${name}`, `dist/${name}`);
const inter = "node_modules/@fontsource-variable/inter";
copyFileSync(`${inter}/files/inter-latin-wght-normal.woff2`, "dist/inter.woff2");
copyFileSync(`${inter}/LICENSE`, "dist/inter-licence.txt");

const options = {
  entryPoints: { app: "src/main.tsx" },
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  external: ["*.woff2"],
  logLevel: "warning",
};
if (watching) await (await esbuild.context(options)).watch();
else await esbuild.build(options);
