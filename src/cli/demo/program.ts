/** One task: run a program that listens on a port, in a process of its own, until it is told to end. */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { release, watch } from '../../dev/guardian.js';
import { LOOPBACK } from '../../dev/ports.js';
import { holdsWithin, signalProcess } from '../../dev/processes.js';
import type { RunAs } from '../../dev/postgres-binaries.js';
import { CutoverError } from '../../errors/errors.js';

export interface ProgramOptions {
  /** for a person, as "the proxy" */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** the port of 127.0.0.1 it was told to listen on */
  readonly port: number;
  /** takes what it prints */
  readonly logFile: string;
  readonly runAs?: RunAs | undefined;
}

export interface Program {
  readonly pid: number;
  /** Asks it to end, waits, and kills it after 10 s. May be called again. */
  stop(): Promise<void>;
}

const START_DEADLINE_MS = 60_000;
const STOP_GRACE_MS = 10_000;
const POLL_MS = 20;
const LOG_TAIL_CHARACTERS = 2_000;

/**
 * Starts the program and returns once its port accepts connections. It ends with this process, however that ends.
 *
 * @throws CutoverError `dev_server_unavailable` with the end of its log when it ends or stays deaf
 */
export async function startProgram(options: ProgramOptions): Promise<Program> {
  const { name, command, args, port, logFile, runAs } = options;
  const log = openSync(logFile, 'a', 0o600);
  // detached: Ctrl-C in a terminal is for the parent, which ends its children in order.
  const child = spawn(command, [...args], { ...runAs, stdio: ['ignore', log, log], detached: true });
  closeSync(log);
  child.once('error', () => undefined);
  const { pid } = child;
  if (pid === undefined) throw unavailable(name, 'the program could not be run');
  watch({ pid, signal: 'SIGTERM' });
  child.once('exit', () => {
    release(pid);
  });
  if (!(await acceptsWithin(port, child))) {
    await stop(child, pid);
    throw unavailable(name, `it does not listen:\n${readFileSync(logFile, 'utf8').slice(-LOG_TAIL_CHARACTERS)}`);
  }
  return { pid, stop: () => stop(child, pid) };
}

async function stop(child: ChildProcess, pid: number): Promise<void> {
  if (hasEnded(child)) return;
  signalProcess(pid, 'SIGTERM');
  if (await holdsWithin(() => hasEnded(child), STOP_GRACE_MS)) return;
  signalProcess(pid, 'SIGKILL');
  await holdsWithin(() => hasEnded(child), STOP_GRACE_MS);
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

async function acceptsWithin(port: number, child: ChildProcess): Promise<boolean> {
  const end = performance.now() + START_DEADLINE_MS;
  while (performance.now() < end && !hasEnded(child)) {
    if (await accepts(port)) return true;
    await sleep(POLL_MS);
  }
  return false;
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, LOOPBACK);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      resolve(false);
    });
  });
}

function unavailable(server: string, problem: string): CutoverError {
  return new CutoverError('dev_server_unavailable', { server, problem, remedy: 'Correct what its log names.' });
}
