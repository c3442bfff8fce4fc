/** One task: run Debian's PgBouncer in front of a server, where it is installed. */
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Endpoint } from '../src/postgres/endpoint.js';
import { freePort, LOOPBACK } from '../src/dev/ports.js';
import { release, removeAtEnd, watch } from '../src/dev/guardian.js';
import { postgresBinaries, temporaryFolder } from '../src/dev/postgres-binaries.js';
import { holdsWithin } from '../src/dev/processes.js';
import { programPath, type Mode } from './pgbench.js';

export interface PgBouncer {
  readonly version: string;
  endpoint(mode: Mode): Endpoint;
  poolMode(mode: Mode): 'transaction' | 'session';
  stop(): Promise<void>;
}

const DEADLINE_MS = 10_000;
/** The first version that keeps prepared statements in transaction pooling. */
const PREPARED_SINCE = [1, 21];

/** Starts it for `server`; undefined when it is not installed. */
export async function startPgBouncer(server: Endpoint, poolSize: number): Promise<PgBouncer | undefined> {
  const program = programPath('pgbouncer');
  if (program === undefined) return undefined;
  const version = /PgBouncer ([\d.]+)/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' }))?.[1] ?? '0';
  // It refuses to run as root, as PostgreSQL does: the same user runs it.
  const { runAs } = postgresBinaries(18);
  const folder = mkdtempSync(join(temporaryFolder(), 'cutover-pgbouncer-'));
  removeAtEnd(folder);
  const port = await freePort();
  const file = join(folder, 'pgbouncer.ini');
  writeFileSync(file, settings(server, port, poolSize));
  if (runAs) for (const path of [folder, file]) chownSync(path, runAs.uid, runAs.gid);
  chmodSync(folder, 0o700);
  const child = spawn(program, ['-q', file], { ...runAs, cwd: folder, stdio: 'ignore', detached: true });
  const { pid } = child;
  if (pid !== undefined) watch({ pid, signal: 'SIGTERM' });
  let ended = false;
  child.once('exit', () => {
    ended = true;
    if (pid !== undefined) release(pid);
  });
  await untilListening(port, () => ended);
  const poolMode = (mode: Mode): 'transaction' | 'session' =>
    mode === 'prepared' && !keepsPrepared(version) ? 'session' : 'transaction';
  return {
    version,
    poolMode,
    endpoint: (mode) => ({ ...server, host: LOOPBACK, port, database: poolMode(mode) }),
    stop: async () => {
      child.kill('SIGTERM');
      await holdsWithin(() => ended, DEADLINE_MS);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Logs are off and authentication is trust: it is to relay, and nothing else. */
function settings(server: Endpoint, port: number, poolSize: number): string {
  const target = `host=${server.host} port=${server.port.toString()} dbname=${server.database} user=${server.user} password=${server.password ?? ''}`;
  return [
    '[databases]',
    `transaction = ${target} pool_mode=transaction`,
    `session = ${target} pool_mode=session`,
    '[pgbouncer]',
    `listen_addr = ${LOOPBACK}`,
    `listen_port = ${port.toString()}`,
    'unix_socket_dir =',
    'auth_type = any',
    `default_pool_size = ${poolSize.toString()}`,
    'log_connections = 0',
    'log_disconnections = 0',
    'ignore_startup_parameters = extra_float_digits',
    '',
  ].join('\n');
}

function keepsPrepared(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [sinceMajor = 0, sinceMinor = 0] = PREPARED_SINCE;
  return major > sinceMajor || (major === sinceMajor && minor >= sinceMinor);
}

async function untilListening(port: number, ended: () => boolean): Promise<void> {
  const end = performance.now() + DEADLINE_MS;
  while (performance.now() < end && !ended()) {
    if (await accepts(port)) return;
  }
  throw new Error('PgBouncer does not listen');
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, LOOPBACK);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      setTimeout(resolve, 20, false);
    });
  });
}
