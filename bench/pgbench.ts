/** One task: find and run pgbench, and read the numbers that matter from what it prints and logs. */
import { execFile } from 'node:child_process';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { temporaryFolder } from '../src/dev/postgres-binaries.js';
import type { Endpoint } from '../src/postgres/endpoint.js';
import { quantile, rounded } from './statistics.js';

export const MODES = ['simple', 'extended', 'prepared'] as const;
export type Mode = (typeof MODES)[number];

/** Scripts that pgbench has in it: a read by key, and a transaction of five statements that writes. */
export const SCRIPTS = ['select-only', 'tpcb-like'] as const;
export type Script = (typeof SCRIPTS)[number];

export interface PgbenchResult {
  readonly transactionsPerSecond: number;
  readonly latencyMs: number;
  /** of a hundred transactions the slowest one waited longer */
  readonly p99Ms: number;
}

/** Where clients connect to, and which accounts they read: as `select-only` does, of all when there is no range. */
export interface Place {
  readonly endpoint: Endpoint;
  /** the first and the last one */
  readonly accounts?: readonly [first: number, last: number];
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
/** Of the transactions, whose times are written down: too few to be in their way. */
const LOGGED_SHARE = 0.05;
/** Of a line of the log: client, transaction, then its time in microseconds (PostgreSQL documentation, pgbench, Per-Transaction Logging). */
const TIME_COLUMN = 2;
const US_PER_MS = 1_000;
const SLOWEST = 0.99;

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

/** One run of a script; against several places at once, with the clients spread over them. */
export async function measure(program: string, places: readonly Place[], load: PgbenchLoad): Promise<PgbenchResult> {
  const clients = load.clients / places.length;
  if (!Number.isInteger(clients)) throw new Error(`clients are a multiple of ${places.length.toString()}`);
  const results = await Promise.all(places.map((place) => measureOne(program, place, { ...load, clients })));
  const transactionsPerSecond = results.reduce((sum, result) => sum + result.transactionsPerSecond, 0);
  const latencyMs = load.clients / (transactionsPerSecond / MS_PER_SECOND);
  return {
    transactionsPerSecond,
    latencyMs,
    p99Ms: rounded(
      quantile(
        results.flatMap(({ timesMs }) => timesMs),
        SLOWEST,
      ),
      2,
    ),
  };
}

interface Measured {
  readonly transactionsPerSecond: number;
  /** of some transactions */
  readonly timesMs: readonly number[];
}

async function measureOne(program: string, { endpoint, accounts }: Place, load: PgbenchLoad): Promise<Measured> {
  const { script, mode, clients, seconds } = load;
  const threads = Math.min(THREADS, clients);
  const size = ['-c', clients.toString(), '-j', threads.toString(), '-T', seconds.toString()];
  const folder = mkdtempSync(join(temporaryFolder(), 'cutover-pgbench-'));
  try {
    const logs = join(folder, 'logs');
    mkdirSync(logs);
    const log = ['-l', `--sampling-rate=${LOGGED_SHARE.toString()}`, `--log-prefix=${join(logs, 'log')}`];
    const what = accounts === undefined ? ['-b', script] : ['-f', writtenReads(folder, accounts)];
    const args = ['-n', ...what, '-M', mode, ...size, ...log];
    const text = await run(program, endpoint, args, seconds * MS_PER_SECOND + GRACE_MS);
    const timesMs = readdirSync(logs).flatMap((name) => timesIn(readFileSync(join(logs, name), 'utf8')));
    return { transactionsPerSecond: numberIn(text, /^tps = ([\d.]+)/m), timesMs };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @returns the path of a script as pgbench's own, of some accounts */
function writtenReads(folder: string, [first, last]: readonly [number, number]): string {
  const path = join(folder, 'reads.sql');
  const range = `\\set aid random(${first.toString()}, ${last.toString()})`;
  writeFileSync(path, `${range}\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n`);
  return path;
}

function timesIn(log: string): readonly number[] {
  const lines = log.split('\n').filter((line) => line !== '');
  return lines.map((line) => Number(line.split(' ')[TIME_COLUMN]) / US_PER_MS);
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
