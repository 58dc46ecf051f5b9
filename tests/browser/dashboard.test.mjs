// The dashboard in a real Chromium, against a real agent with the example apps. Screenshots are kept in target/screenshots.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { Demo, root, until } from "./demo.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const shots = join(root, "target/screenshots");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const program = process.env.CHROMIUM ?? "/usr/bin/chromium";
if (!existsSync(program) && process.env.CI !== "true") {
  console.log(`skipped: there is no ${program}; install Debian's chromium, or name another with CHROMIUM`);
  process.exit(0);
}

let demo, browser, token;
const faults = [];

/** A tab that notes everything a person would not see: refused scripts, requests to other hosts, errors. */
async function tab(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(`${page.url()}: ${error}`));
  page.on("console", (message) => {
    const expected = message.text().includes("status of 4") || message.text().includes("ERR_");
    if (message.type() === "error" && !expected) faults.push(`${page.url()}: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== demo.base) faults.push(`${page.url()} asks ${request.url()}`);
  });
  return page;
}

async function signIn(page) {
  await page.goto(`${demo.base}/login`);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(`${demo.base}/`);
}

/** Axe runs in the isolated world of the debugger: the page's own policy lets no script in. */
async function accessible(page, what) {
  const session = await page.context().newCDPSession(page);
  await session.send("Runtime.evaluate", { expression: axe });
  const { result } = await session.send("Runtime.evaluate", {
    expression: "axe.run().then((found) => JSON.stringify(found.violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.slice(0, 3).map((node) => node.html) }))))",
    awaitPromise: true,
  });
  await session.detach();
  const serious = JSON.parse(result.value).filter(({ impact }) => ["serious", "critical"].includes(impact));
  assert.deepEqual(serious, [], `${what} has serious findings`);
}

const live = (app) => demo.json("app", "show", app).live_version;

before(async () => {
  mkdirSync(shots, { recursive: true });
  browser = await chromium.launch({ executablePath: program, args: FLAGS });
  demo = await Demo.start();
  token = demo.json("token", "create", "browser", "--scope", "admin").secret;
  // Something of everything: a failed deployment, a held app, calls.
  demo.push("hello/server.py", (text) => text.replace("seagreen", "rebeccapurple"), "hello: <b>another</b> colour");
  await until("hello v2 is live", () => live("hello") === 2);
  demo.push("guestbook/server.py", (text) => `raise SystemExit("no <script>alert(1)</script> today")\n${text}`, "guestbook: break it");
  await until("guestbook v2 failed", () => demo.json("app", "history", "guestbook")[0].status === "failed");
  demo.push("guestbook/server.py", (text) => text.split("\n").slice(1).join("\n"), "guestbook: mend it");
  for (let name = 0; name < 5; name += 1) demo.cli("call", "functions", "greet", '{"name": "Ada"}');
  demo.cli("call", "functions", "greet", "5", "--spawn");
});

after(async () => {
  await browser?.close();
  await demo?.end();
});

test("every page answers, needs nobody else, reads well in light and dark and on a small screen", async () => {
  const call = demo.json("calls", "list")[0].call;
  const failed = demo.json("app", "history", "guestbook").find(({ status }) => status === "failed").deployment;
  const pages = {
    apps: "/", app: "/apps/hello", functions: "/apps/functions", failed: `/deployments/${failed}`, versions: "/apps/hello/versions", diff: "/apps/guestbook/diff?from=1&to=2",
    logs: "/apps/clock/logs", calls: "/calls", call: `/calls/${call}`, schedules: "/schedules", schedule: "/apps/clock/schedules/chime",
    sources: "/sources", source: "/sources/fleet", activity: "/activity", notifications: "/notifications", settings: "/settings",
    certificates: "/certificates", secrets: "/secrets", audit: "/audit", function: "/apps/functions/functions/greet",
    rollback: "/ui/apps/hello/rollback", stop: "/ui/apps/hello/stop", scale: "/ui/apps/functions/scale", login: "/login", missing: "/apps/nobody",
  };
  for (const colorScheme of ["light", "dark"]) {
    const page = await tab({ colorScheme });
    await signIn(page);
    for (const [name, path] of Object.entries(pages)) {
      const answer = await page.goto(demo.base + path);
      assert.equal(answer.status(), name === "missing" ? 404 : 200, path);
      assert.ok(await page.getByRole("heading", { level: 1 }).first().isVisible(), path);
      await until(`${path} is live`, () => page.locator("#mark.live").isVisible());
      await accessible(page, `${path} (${colorScheme})`);
      await page.screenshot({ path: join(shots, `${name}-${colorScheme}.png`) });
    }
    await page.context().close();
  }
  const small = await tab({ viewport: { width: 390, height: 800 } });
  for (const name of ["apps", "app", "failed", "logs"]) {
    await small.goto(demo.base + pages[name]);
    const over = await small.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(over <= 0, `${name} is ${over} px too wide for a telephone`);
    await small.screenshot({ path: join(shots, `${name}-small.png`) });
  }
  await small.context().close();
  assert.deepEqual(faults, []);
});

test("a page left open while 20 deployments pass shows the truth without being loaded again", async () => {
  const page = await tab();
  await page.goto(`${demo.base}/apps/hello`);
  await page.evaluate(() => (window.loadedOnce = true));
  const list = await tab();
  await list.goto(demo.base);
  const first = live("hello");
  for (let number = 1; number <= 20; number += 1) {
    demo.push("hello/server.py", (text) => `${text}# ${number}\n`, `hello: change ${number}`);
    await until(`hello v${first + number} is live`, () => live("hello") === first + number);
  }
  const newest = `v${first + 20}`;
  await until(`the app's page shows ${newest}`, async () => (await page.locator("aside dd").first().innerText()).startsWith(newest), 10_000);
  await until("and its versions", async () => (await page.locator(".versions tbody tr").first().innerText()).includes("hello: change 20"), 10_000);
  await until(`the list shows ${newest}`, async () => (await list.locator("#app-main-hello .version").innerText()) === newest, 10_000);
  assert.ok(await page.evaluate(() => window.loadedOnce), "the page was loaded again");
  await page.screenshot({ path: join(shots, "after-20-deployments.png") });
});

test("an agent that is killed shows as reconnecting, and its return brings the page up to date", async () => {
  const page = await tab();
  await page.goto(`${demo.base}/apps/clock`);
  await until("live", () => page.locator("#mark.live").isVisible());
  process.kill(demo.json("status").processes.controller.pid, "SIGKILL");
  await until("reconnecting", async () => (await page.locator("#mark .word").innerText()) === "reconnecting");
  await until("live again", () => page.locator("#mark.live").isVisible());
  demo.push("clock/clock.sh", (text) => `${text}# again\n`, "clock: again");
  await until("the next version is seen", async () => (await page.locator(".versions tbody tr").first().innerText()).includes("clock: again"));
});

test("new lines of a log appear by themselves, and filters narrow them", async () => {
  const page = await tab();
  await page.goto(`${demo.base}/apps/clock/logs?q=tick`);
  const lines = page.locator(".log .line");
  await until("lines", async () => (await lines.count()) > 0);
  const before = await lines.last().innerText();
  await until("another", async () => (await lines.last().innerText()) !== before, 20_000);
  for (const text of await lines.locator(".text").allInnerTexts()) assert.match(text, /tick/i);
});

test("typing filters the apps while the focus stays", async () => {
  const page = await tab();
  await page.goto(demo.base);
  await page.getByRole("searchbox").pressSequentially("guest");
  await until("one app", async () => (await page.locator("tbody tr").count()) === 1);
  assert.equal(await page.evaluate(() => document.activeElement.id), "q");
  assert.match(page.url(), /q=guest/);
});

test("without a name pages only read; a wrong token is told so; a right one opens the actions", async () => {
  const page = await tab();
  await page.goto(`${demo.base}/apps/hello`);
  assert.equal(await page.getByRole("link", { name: /^Stop/ }).count(), 0);
  await page.goto(`${demo.base}/login`);
  await page.getByLabel("Token").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  await signIn(page);
  await page.goto(`${demo.base}/apps/hello`);
  assert.equal(await page.getByRole("link", { name: /^Stop/ }).count(), 1);
  const { cookie } = await page.evaluate(() => ({ cookie: document.cookie }));
  assert.doesNotMatch(cookie, /session/, "scripts see the session");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.goto(`${demo.base}/apps/hello`);
  assert.equal(await page.getByRole("link", { name: /^Stop/ }).count(), 0);
});

test("every action does what it says, and the record says who", async () => {
  const page = await tab();
  await signIn(page);
  const at = (path) => page.goto(demo.base + path);
  const press = (name) => page.getByRole("main").getByRole("button", { name }).click();
  const said = (words) => page.locator(".said").getByText(words).waitFor();
  const shown = (app, state) => until(`${app} is ${state}`, () => demo.json("app", "show", app).state === state);

  await at("/apps/hello/versions");
  const earlier = live("hello") - 3;
  await page.locator(`#version-v${earlier}`).getByRole("link", { name: /^Roll back/ }).click();
  await page.getByLabel(/^Reason/).fill("I liked the <i>green</i>");
  await press("Roll back hello");
  await page.waitForURL(/deployments/);
  await shown("hello", "held");
  const back = demo.json("app", "history", "hello")[0];
  assert.equal(back.rollback_of, earlier);
  assert.match(back.actor, /browser/);
  await at("/apps/hello");
  await page.screenshot({ path: join(shots, "held.png") });
  await page.getByRole("link", { name: /^Release/ }).click();
  await page.getByLabel(/quarantined/).check();
  await press("Release hello");
  await shown("hello", "deployed");

  await at("/ui/apps/hello/rollover");
  const before = live("hello");
  await press("Roll over hello");
  await until("the next version", () => live("hello") > before);

  await at("/ui/apps/hello/suspend");
  await page.getByLabel(/^Reason/).fill("holidays");
  await press("Suspend hello");
  await said("hello is suspended.");
  await shown("hello", "suspended");
  await page.getByRole("link", { name: /^Resume/ }).click();
  await press("Resume hello");
  await said("hello goes on.");

  await at("/ui/apps/functions/scale");
  await page.getByLabel("Object").selectOption("greet");
  await page.getByLabel("At most").fill("3");
  await page.getByLabel("At least").fill("2");
  await press("Scale functions");
  await said(/greet has 2 to 3 instances/);

  await at("/apps/clock/schedules/chime");
  await press("Run now");
  await page.waitForURL(/calls/);
  await said("chime was started.");
  await at("/apps/clock/schedules/chime");
  await press("Pause");
  await said("chime is paused.");
  await press("Resume");
  await said("chime starts by itself again.");

  const call = demo.json("calls", "list").find(({ outcome }) => outcome === "failed")?.call;
  if (call) {
    await at(`/calls/${call}`);
    await press("Try anew");
    await said("This call tries it anew.");
  }

  await at("/sources/fleet");
  await press("Look now");
  await said(/Looked at/);
  await press("Suspend");
  await said(/Nothing is looked at/);
  await press("Resume");
  await said(/looked at again/);

  await at("/notifications");
  await press("Send a test");
  await said(/message/);

  await at("/secrets");
  await page.getByLabel("Name").fill("api-token");
  await page.getByLabel("Value").fill("canary-of-the-browser");
  await press("Store it");
  await said("api-token is stored, revision 1.");
  assert.equal(demo.json("secret", "list").find(({ secret }) => secret === "api-token").revision, 1);
  assert.ok(!(await page.content()).includes("canary"), "the value is shown");
  await page.screenshot({ path: join(shots, "secret-stored.png") });
  await page.getByRole("link", { name: /^Remove… api-token/ }).click();
  await press("Remove api-token");
  await said("api-token is removed.");
  assert.equal(demo.json("secret", "list").length, 0);
  await at("/audit?actor=browser");
  const changes = await page.locator(".audit code").allInnerTexts();
  assert.deepEqual(changes.slice(0, 2), ["secret.remove", "secret.create"]);
  assert.ok(!(await page.content()).includes("canary"), "the audit log knows the value");

  await at("/apps/guestbook");
  await page.getByRole("link", { name: /^Stop/ }).click();
  await page.getByLabel(/^Reason/).fill("enough");
  await press("Stop guestbook");
  await shown("guestbook", "stopped");
  assert.deepEqual(faults, []);
});

test("a form of another site changes nothing", async () => {
  const page = await tab();
  await signIn(page);
  const answer = await page.context().request.post(`${demo.base}/ui/apps/hello/stop`, { form: { reason: "x" }, headers: { origin: demo.base } });
  assert.equal(answer.status(), 403);
  assert.notEqual(demo.json("app", "show", "hello").state, "stopped");
});

test("everything can be read without JavaScript, and the keyboard reaches everything", async () => {
  const page = await tab({ javaScriptEnabled: false });
  for (const path of ["/", "/apps/hello", "/apps/clock/logs", "/activity"]) {
    await page.goto(demo.base + path);
    assert.ok((await page.locator("main").innerText()).length > 40, path);
  }
  await page.goto(`${demo.base}/?q=clock`);
  assert.equal(await page.locator("tbody tr").count(), 1);
  await page.getByRole("button", { name: "Dark" }).click();
  assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  const keyed = await tab();
  await keyed.goto(demo.base);
  await keyed.keyboard.press("Tab");
  assert.equal(await keyed.evaluate(() => document.activeElement.textContent), "Skip to the content");
});
