// A demo of its own for the tests: the program under test, its example apps, a token, and pushes to its repository.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const root = new URL("../..", import.meta.url).pathname;
const program = process.env.LANDFALL ?? join(root, "target/debug/landfall");
const DEADLINE = 120_000;

/** Waits until `ask` answers something; says what it last saw when it does not. */
export async function until(what, ask, within = 60_000) {
  const end = Date.now() + within;
  let seen;
  while (Date.now() < end) {
    try {
      const answer = await ask();
      if (answer) return answer;
      seen = answer;
    } catch (error) {
      seen = error;
    }
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`not within ${within} ms: ${what}; last seen: ${seen}`);
}

function freePort() {
  return new Promise((done, failed) => {
    const server = createServer();
    server.once("error", failed);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

export class Demo {
  static async start() {
    const demo = new Demo();
    demo.dir = mkdtempSync(join(tmpdir(), "landfall-browser-"));
    const [apps, pages] = [await freePort(), await freePort()];
    demo.base = `http://localhost:${pages}`;
    const listen = ["--listen", `127.0.0.1:${apps}`, "--dashboard", `127.0.0.1:${pages}`];
    demo.process = spawn(program, ["demo", "--dir", join(demo.dir, "demo"), ...listen], { stdio: ["ignore", "pipe", "inherit"] });
    let said = "";
    demo.process.stdout.on("data", (text) => (said += text));
    await until("the demo is up", () => said.includes("Ctrl-C ends the demo."), DEADLINE);
    if (!said.includes(`http://127.0.0.1:${pages}/`)) throw new Error(`the demo does not say where its pages are:\n${said}`);
    demo.fleet = join(demo.dir, "fleet");
    demo.git(["clone", "-q", join(demo.dir, "demo/fleet.git"), demo.fleet], demo.dir);
    return demo;
  }

  git(words, cwd = this.fleet) {
    const who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
    return execFileSync("git", [...who, ...words], { cwd, encoding: "utf8", env: { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null" } });
  }

  cli(...words) {
    const agent = join(this.dir, "demo/data/landfall.sock");
    return execFileSync(program, ["--agent", agent, ...words], { encoding: "utf8" });
  }

  json(...words) {
    try {
      return JSON.parse(this.cli(...words, "--json"));
    } catch (error) {
      // `status` says that something is wrong by its exit code, too.
      if (!error.stdout) throw error;
      return JSON.parse(error.stdout);
    }
  }

  /** Changes a file of the repository, as a push does. */
  push(file, change, message) {
    const path = join(this.fleet, file);
    writeFileSync(path, change(readFileSync(path, "utf8")));
    this.git(["commit", "-qam", message]);
    this.git(["push", "-q"]);
  }

  async end() {
    const ended = new Promise((done) => this.process.once("exit", done));
    this.process.kill("SIGINT");
    await ended;
    rmSync(this.dir, { recursive: true, force: true });
  }
}
