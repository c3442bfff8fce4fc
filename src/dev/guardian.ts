/**
 * One task: see that no server started by this process outlives it, however it ends.
 *
 * One small child process holds the other end of a pipe. When this process ends, by exit, signal, uncaught error or
 * SIGKILL, the operating system closes the pipe, and the guardian stops what it was told to watch and removes the
 * temporary directories. No exit handler is needed, and none could run after SIGKILL.
 */
import { spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { invariant } from '../errors/invariant.js';

export interface Ward {
  readonly pid: number;
  /** the signal that stops the server at once and in order */
  readonly signal: NodeJS.Signals;
}

/**
 * The guardian's program. Kept as a string: it must run the same from sources under a test runner and from built
 * JavaScript, and needs nothing but Node. Signals meant for the terminal's whole process group do not end it.
 */
const PROGRAM = `
const fs = require('node:fs');
const GRACE_MS = 8000, POLL_MS = 20;
const wards = new Map(), directories = new Set();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});
const tell = (pid, signal) => { try { process.kill(pid, signal); return true; } catch { return false; } };
const running = (pid) => {
  if (!tell(pid, 0)) return false;
  try { const s = fs.readFileSync('/proc/' + pid + '/stat', 'utf8'); return s.slice(s.lastIndexOf(')') + 2)[0] !== 'Z'; }
  catch { return fs.existsSync('/proc/self/stat') ? false : true; }
};
const handle = (order) => {
  if (order.watch) wards.set(order.watch, order.signal);
  if (order.release) wards.delete(order.release);
  if (order.remove) directories.add(order.remove);
  if (order.keep) directories.delete(order.keep);
};
let text = '';
process.stdin.setEncoding('utf8');
process.stdin.on('data', (chunk) => {
  const lines = (text + chunk).split('\\n');
  text = lines.pop();
  for (const line of lines) handle(JSON.parse(line));
});
const finish = () => {
  for (const [pid, signal] of wards) { tell(pid, signal); tell(pid, 'SIGCONT'); }
  const end = Date.now() + GRACE_MS;
  const look = () => {
    const left = [...wards.keys()].filter(running);
    if (left.length > 0 && Date.now() < end) return setTimeout(look, POLL_MS);
    for (const pid of left) tell(pid, 'SIGKILL');
    for (const directory of directories)
      try { fs.rmSync(directory, { recursive: true, force: true, maxRetries: 10 }); } catch {}
    process.exit(0);
  };
  look();
};
process.stdin.on('end', finish);
process.stdin.on('error', finish);
`;

let pipe: Socket | undefined;

/** Watches a server process until {@link release}; may be called again. */
export function watch(ward: Ward): void {
  order({ watch: ward.pid, signal: ward.signal });
}

/** The server has ended by itself or was ended in order: its pid may belong to somebody else from now on. */
export function release(pid: number): void {
  order({ release: pid });
}

/** Removes the directory and all in it when this process ends. */
export function removeAtEnd(directory: string): void {
  order({ remove: directory });
}

/** Takes {@link removeAtEnd} back: the directory is already gone, or is to stay. */
export function keepAtEnd(directory: string): void {
  order({ keep: directory });
}

type Order = Readonly<Record<'watch' | 'release', number> | Record<string, string | number>>;

function order(message: Order): void {
  pipe ??= startGuardian();
  pipe.write(`${JSON.stringify(message)}\n`);
}

function startGuardian(): Socket {
  // detached: a session of its own, so that Ctrl-C in a terminal does not reach it.
  const child = spawn(process.execPath, ['-e', PROGRAM], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  child.unref();
  const stdin = child.stdin as unknown as Socket;
  invariant(typeof stdin.unref === 'function', 'the pipe to a child process is a socket');
  // A guardian that was killed must not end the program it guards.
  stdin.on('error', () => undefined);
  stdin.unref();
  return stdin;
}
