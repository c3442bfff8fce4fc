/** One task: find and run pgbench, and read the two numbers that matter from what it prints. */
import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import type { Endpoint } from '../src/postgres/endpoint.js';

export const MODES = ['simple', 'extended', 'prepared'] as const;
export type Mode = (typeof MODES)[number];

/** Scripts that pgbench has in it: a read by key, and a transaction of five statements that writes. */
export const SCRIPTS = ['select-only', 'tpcb-like'] as const;
export type Script = (typeof SCRIPTS)[number];

export interface PgbenchResult {
  readonly transactionsPerSecond: number;
  readonly latencyMs: number;
}

export interface PgbenchLoad {
  readonly script: Script;
  readonly mode: Mode;
  readonly clients: number;
  readonly seconds: number;
}

const DEBIAN = '/usr/lib/postgresql';
const THREADS = 2;
const MS_PER_SECOND = 1_000;
const GRACE_MS = 60_000;

/** The path of a program on PATH or in Debian's folders of PostgreSQL, newest first; undefined when there is none. */
export function programPath(name: string): string | undefined {
  const debian = existsSync(DEBIAN) ? readdirSync(DEBIAN).sort((one, other) => Number(other) - Number(one)) : [];
  const folders = [...(process.env.PATH ?? '').split(delimiter), ...debian.map((major) => join(DEBIAN, major, 'bin'))];
  return [...folders, '/usr/sbin'].map((folder) => join(folder, name)).find(isProgram);
}

/** Makes pgbench's tables, `scale` × 100,000 rows. */
export async function initialise(program: string, endpoint: Endpoint, scale: number): Promise<void> {
  await run(program, endpoint, ['-i', '-q', '-s', scale.toString()], GRACE_MS);
}

/** One run of a built-in script; against several places at once, with the clients spread over them. */
export async function measure(
  program: string,
  endpoints: readonly Endpoint[],
  load: PgbenchLoad,
): Promise<PgbenchResult> {
  const clients = load.clients / endpoints.length;
  if (!Number.isInteger(clients)) throw new Error(`clients are a multiple of ${endpoints.length.toString()}`);
  const results = await Promise.all(endpoints.map((endpoint) => measureOne(program, endpoint, { ...load, clients })));
  const transactionsPerSecond = results.reduce((sum, result) => sum + result.transactionsPerSecond, 0);
  return { transactionsPerSecond, latencyMs: load.clients / (transactionsPerSecond / MS_PER_SECOND) };
}

async function measureOne(program: string, endpoint: Endpoint, load: PgbenchLoad): Promise<PgbenchResult> {
  const { script, mode, clients, seconds } = load;
  const threads = Math.min(THREADS, clients);
  const size = ['-c', clients.toString(), '-j', threads.toString(), '-T', seconds.toString()];
  const text = await run(program, endpoint, ['-n', '-b', script, '-M', mode, ...size], seconds * 1_000 + GRACE_MS);
  return {
    transactionsPerSecond: numberIn(text, /^tps = ([\d.]+)/m),
    latencyMs: numberIn(text, /^latency average = ([\d.]+) ms/m),
  };
}

async function run(program: string, endpoint: Endpoint, args: readonly string[], timeoutMs: number): Promise<string> {
  const { host, port, user, database, password = '' } = endpoint;
  const to = ['-h', host, '-p', port.toString(), '-U', user];
  const env = { PATH: process.env.PATH, LC_ALL: 'C', PGPASSWORD: password };
  const { stdout } = await promisify(execFile)(program, [...args, ...to, database], { env, timeout: timeoutMs });
  return stdout;
}

function numberIn(text: string, pattern: RegExp): number {
  const value = Number(pattern.exec(text)?.[1]);
  if (Number.isNaN(value)) throw new Error(`pgbench printed no ${pattern.source}:\n${text}`);
  return value;
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
