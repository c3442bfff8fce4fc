/** One task: run Debian's PgBouncer in front of a server, where it is installed. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Endpoint } from '../src/postgres/endpoint.js';
import { freePort, LOOPBACK } from '../src/dev/ports.js';
import { postgresBinaries } from '../src/dev/postgres-binaries.js';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { startProgram } from '../src/cli/demo/program.js';
import { programPath, type Mode } from './pgbench.js';

type PoolMode = 'transaction' | 'session';

export interface PgBouncer {
  readonly version: string;
  endpoint(mode: Mode): Endpoint;
  poolMode(mode: Mode): PoolMode;
}

/** The first version that keeps prepared statements in transaction pooling. */
const PREPARED_SINCE = { major: 1, minor: 21 };

/** Starts it for `server` with its files in `folder`; undefined when it is not installed. */
export async function startPgBouncer(
  server: Endpoint,
  poolSize: number,
  folder: string,
  cleanup: Cleanup,
): Promise<PgBouncer | undefined> {
  const command = programPath('pgbouncer');
  if (command === undefined) return undefined;
  const version = /PgBouncer ([\d.]+)/.exec(execFileSync(command, ['--version'], { encoding: 'utf8' }))?.[1] ?? '0';
  const port = await freePort();
  // It refuses to run as root, as PostgreSQL does: the same user runs it.
  const { runAs } = postgresBinaries(18);
  const own = join(folder, 'pgbouncer');
  const file = join(own, 'pgbouncer.ini');
  mkdirSync(own, { mode: 0o700 });
  writeFileSync(file, settings(server, port, poolSize), { mode: 0o600 });
  if (runAs) {
    chmodSync(folder, 0o711);
    for (const path of [own, file]) chownSync(path, runAs.uid, runAs.gid);
  }
  const logFile = join(folder, 'pgbouncer.log');
  const program = await startProgram({ name: 'PgBouncer', command, args: ['-q', file], port, logFile, runAs });
  cleanup.defer('a program', () => program.stop());
  const poolMode = (mode: Mode): PoolMode =>
    mode === 'prepared' && !keepsPrepared(version) ? 'session' : 'transaction';
  return { version, poolMode, endpoint: (mode) => ({ ...server, host: LOOPBACK, port, database: poolMode(mode) }) };
}

/** No log of connections and no authentication: it is to relay, and nothing else. */
function settings({ host, port, database, user, password = '' }: Endpoint, ownPort: number, poolSize: number): string {
  const target = `host=${host} port=${port.toString()} dbname=${database} user=${user} password=${password}`;
  return [
    '[databases]',
    `transaction = ${target} pool_mode=transaction`,
    `session = ${target} pool_mode=session`,
    '[pgbouncer]',
    `listen_addr = ${LOOPBACK}`,
    `listen_port = ${ownPort.toString()}`,
    'unix_socket_dir =',
    'auth_type = any',
    // Those of the measurement before may not be gone yet.
    `max_client_conn = ${(2 * poolSize).toString()}`,
    `default_pool_size = ${poolSize.toString()}`,
    'log_connections = 0',
    'log_disconnections = 0',
    '',
  ].join('\n');
}

function keepsPrepared(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > PREPARED_SINCE.major || (major === PREPARED_SINCE.major && minor >= PREPARED_SINCE.minor);
}
