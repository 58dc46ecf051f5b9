// Runs one JavaScript function as an HTTP server on $PORT: loaded once, kept warm, called by POST.
//
// Started by Landfall as `node worker.mjs FILE:FUNCTION` in the app's directory. Node 18 or newer, nothing else. What a
// call prints is written line by line with the call's identifier before it (RS id US text), so that each line can be
// found by its call.
//
// A call is `POST /` with the headers Landfall-Call, Landfall-Attempt and Landfall-Deadline. The port accepts connections
// only once the file is loaded.

import { AsyncLocalStorage } from 'node:async_hooks';
import { readFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:http';
import { basename, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { format } from 'node:util';

const calls = new AsyncLocalStorage();
const ownUrl = import.meta.url;
const SHORTEST_MASKED = 6;

/** Standard output or error: whole lines, each tagged with the call that wrote it. */
class Tagged {
  constructor(descriptor) {
    this.descriptor = descriptor;
    this.unfinished = new Map();
  }

  write(text) {
    const call = calls.getStore() ?? '';
    const lines = ((this.unfinished.get(call) ?? '') + text).split('\n');
    const rest = lines.pop();
    if (rest === '') this.unfinished.delete(call);
    else this.unfinished.set(call, rest);
    this.put(call, lines);
  }

  /** The call is over: what it wrote without a last newline is a line too. */
  finish(call) {
    const rest = this.unfinished.get(call);
    if (rest === undefined) return;
    this.unfinished.delete(call);
    this.put(call, [rest]);
  }

  put(call, lines) {
    if (lines.length === 0) return;
    const tag = call === '' ? '' : `\x1e${call}\x1f`;
    let data = Buffer.from(lines.map((line) => `${tag}${line}\n`).join(''));
    while (data.length > 0) {
      try {
        data = data.subarray(writeSync(this.descriptor, data));
      } catch (error) {
        // The reader is behind: wait for it, as a program that writes to a pipe does.
        if (error.code !== 'EAGAIN') return;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
      }
    }
  }
}

const out = new Tagged(1);
const err = new Tagged(2);

function tagStream(stream, tagged) {
  stream.write = (chunk, encoding, done) => {
    tagged.write(typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString());
    const callback = typeof encoding === 'function' ? encoding : done;
    if (callback) process.nextTick(callback);
    return true;
  };
}

tagStream(process.stdout, out);
tagStream(process.stderr, err);
for (const name of ['log', 'info', 'debug']) console[name] = (...values) => out.write(format(...values) + '\n');
for (const name of ['warn', 'error', 'trace']) console[name] = (...values) => err.write(format(...values) + '\n');

function leave(reason) {
  err.write(reason + '\n');
  process.exit(1);
}

/** The function that was asked for. Ends the process with the reason when there is none. */
async function load(wanted) {
  const colon = wanted.lastIndexOf(':');
  const [file, name] = [wanted.slice(0, colon), wanted.slice(colon + 1)];
  let module;
  try {
    module = await import(pathToFileURL(resolve(file)).href);
  } catch (error) {
    // Node itself shows the place of a syntax error, and only when nobody catches it.
    if (error instanceof SyntaxError) throw error;
    err.write(traceback(error) + '\n');
    leave(`${file} cannot be loaded: ${error?.name ?? 'Error'}: ${error?.message ?? error}`);
  }
  // A CommonJS file exports its functions as one object.
  const found = module[name] ?? module.default?.[name];
  if (typeof found !== 'function') {
    const own = Object.keys({ ...module.default, ...module }).filter((key) => key !== 'default').sort();
    leave(`${basename(file)} exports no function \`${name}\`; it exports: ${own.join(', ') || 'nothing'}`);
  }
  return found;
}

/** The lines of this instance's secrets that are long enough to be known again, the longest first. */
function secretLines() {
  const named = (variable) => (process.env[variable] ?? '').split(',').filter((name) => name in process.env);
  const values = named('LANDFALL_SECRETS').map((name) => process.env[name]);
  for (const name of named('LANDFALL_SECRET_FILES')) {
    try {
      values.push(readFileSync(process.env[name], 'utf8'));
    } catch {
      // What cannot be read here no handler can tell either.
    }
  }
  const lines = values.flatMap((value) => value.split(/\r?\n/)).filter((line) => line.length >= SHORTEST_MASKED);
  return [...new Set(lines)].sort((one, other) => other.length - one.length);
}

const secrets = secretLines();

/** A text that others read than the author: without values of secrets. */
function masked(text) {
  return secrets.reduce((text, line) => text.replaceAll(line, '[redacted]'), text);
}

/** The stack without the frames of this file and of Node's inside. */
function traceback(error) {
  if (!(error instanceof Error)) return format(error);
  const lines = (error.stack ?? `${error.name}: ${error.message}`).split('\n');
  return lines.filter((line) => !line.includes(ownUrl) && !line.includes('(node:')).join('\n');
}

class BadBody extends Error {
  constructor(message) {
    super(message);
    this.name = 'BadBody';
  }
}

/** What a body means as arguments: an array lists them, anything else is the only one. */
function args(kind, body) {
  if (kind === 'application/octet-stream') return [body];
  if (body.length === 0) return [];
  let value;
  try {
    value = JSON.parse(body.toString());
  } catch (error) {
    throw new BadBody(`the body is not JSON: ${error.message}; send bytes as application/octet-stream`);
  }
  return Array.isArray(value) ? value : [value];
}

/** A result as content type and bytes. */
function encode(value) {
  if (value instanceof Uint8Array) return ['application/octet-stream', value];
  if (value instanceof ArrayBuffer) return ['application/octet-stream', new Uint8Array(value)];
  return ['application/json', Buffer.from(JSON.stringify(value === undefined ? null : value) ?? 'null')];
}

function streams(value) {
  if (value === null || typeof value !== 'object' || value instanceof Uint8Array || Array.isArray(value)) return false;
  const name = Object.prototype.toString.call(value);
  return name === '[object Generator]' || name === '[object AsyncGenerator]';
}

/** One JSON line or piece of bytes at a time; the next is asked for once this one has gone. */
async function sendPieces(response, pieces) {
  for await (const piece of pieces) {
    if (response.destroyed) break;
    const [kind, bytes] = encode(piece);
    const json = kind === 'application/json';
    if (!response.headersSent) response.writeHead(200, { 'Content-Type': json ? 'application/x-ndjson' : kind });
    const flows = response.write(json ? Buffer.concat([bytes, Buffer.from('\n')]) : bytes);
    if (!flows) await new Promise((go) => response.once('drain', go).once('close', go));
  }
  if (!response.headersSent) response.writeHead(200, { 'Content-Type': 'application/x-ndjson' });
  response.end();
}

function answer(response, status, kind, bytes, more = {}) {
  response.writeHead(status, { 'Content-Type': kind, 'Content-Length': bytes.length, ...more });
  response.end(bytes);
}

function fail(response, error) {
  const [message, text] = [String(error?.message ?? error), traceback(error)].map(masked);
  err.write(text + '\n');
  // The head has gone: only an answer that ends too early can still say that it failed.
  if (response.headersSent) return response.destroy();
  const body = { type: error?.name ?? typeof error, message, traceback: text };
  const status = error instanceof BadBody ? 400 : 500;
  answer(response, status, 'application/json', Buffer.from(JSON.stringify(body)), { 'Landfall-Error': '1' });
}

async function called(run, request, response) {
  try {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const kind = (request.headers['content-type'] ?? '').split(';')[0].trim().toLowerCase();
    const value = await run(...args(kind, Buffer.concat(pieces)));
    if (streams(value)) await sendPieces(response, value);
    else answer(response, 200, ...encode(value));
  } catch (error) {
    fail(response, error);
  }
}

const run = await load(process.argv[2]);
let running = 0;
let leaving = false;

function perhapsEnd() {
  if (leaving && running === 0) process.exit(0);
}

const server = createServer((request, response) => {
  if (request.method !== 'POST') {
    answer(response, 405, 'text/plain', Buffer.from('calls are made by POST\n'));
    return;
  }
  const call = String(request.headers['landfall-call'] ?? '');
  running += 1;
  if (leaving) response.setHeader('Connection', 'close');
  // Over when the function is and the answer has left the process, or nobody reads it.
  const closed = new Promise((go) => response.once('close', go));
  const done = calls.run(call, () => called(run, request, response)).finally(() => {
    out.finish(call);
    err.finish(call);
  });
  Promise.allSettled([done, closed]).then(() => {
    running -= 1;
    perhapsEnd();
  });
});
// The proxy closes what is idle, and ends what takes too long.
server.keepAliveTimeout = 0;
server.requestTimeout = 0;
server.headersTimeout = 0;
server.timeout = 0;

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    leaving = true;
    server.close();
    perhapsEnd();
  });
}
process.on('unhandledRejection', (error) => {
  err.write(`unhandled rejection: ${traceback(error)}\n`);
});
server.listen(Number(process.env.PORT), process.env.HOST ?? '127.0.0.1', 1024);
