/** One task: run real PostgreSQL clusters of several majors for the demo and the tests. */
import { spawn, type ChildProcess } from 'node:child_process';
import { appendFileSync, chmodSync, chownSync, closeSync, cpSync, existsSync, mkdirSync, mkdtempSync } from 'node:fs';
import { openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { CutoverError, messageOf } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { quoteIdentifier } from '../postgres/connection.js';
import type { Endpoint } from '../postgres/endpoint.js';
import { copyTemplate } from './cluster-template.js';
import { keepAtEnd, release, removeAtEnd, watch } from './guardian.js';
import { newPassword, runInitdb, serverEnvironment, SUPERUSER, writePassword, type Proof } from './initdb.js';
import { freePort, LOOPBACK } from './ports.js';
import { postgresBinaries, temporaryFolder, type Binaries, type Major } from './postgres-binaries.js';
import { childrenOf, holdsWithin, isRunning, signalProcess } from './processes.js';

export { isPackaged, type Major } from './postgres-binaries.js';

export interface ClusterOptions {
  readonly major: Major;
  /** settings of postgresql.conf, over the defaults of this file */
  readonly settings?: Readonly<Record<string, string>>;
  /** where data, log and password live; given: it stays and may be started again; absent: temporary */
  readonly directory?: string;
  /** how TCP clients prove who they are; default trust */
  readonly auth?: 'trust' | 'scram';
  /** the superuser's, where several clusters must have the same; absent: a random one */
  readonly password?: string;
}

export type Row = Record<string, unknown>;

const START_DEADLINE_MS = 60_000;
const STOP_DEADLINE_MS = 60_000;
const LOG_TAIL_CHARACTERS = 2_000;
const PORT_ATTEMPTS_MAX = 5;
/** A session with these leaves no text of a statement in the server's log (PostgreSQL documentation, 20.8). */
const UNLOGGED = '-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic';

/** Generous for replication, small in memory: several clusters run on one small machine. */
const DEFAULT_SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: LOOPBACK,
  unix_socket_directories: '',
  max_connections: '200',
  shared_buffers: '64MB',
  fsync: 'on',
  wal_level: 'logical',
  max_wal_senders: '40',
  max_replication_slots: '40',
  max_worker_processes: '64',
  max_logical_replication_workers: '40',
  max_sync_workers_per_subscription: '4',
  max_prepared_transactions: '10',
  max_locks_per_transaction: '256',
  timezone: 'UTC',
  log_line_prefix: '%m [%p] %q%u@%d ',
};

/** One running PostgreSQL cluster. All of it ends with this process, however that ends. */
export class Cluster {
  readonly host = LOOPBACK;
  readonly superuser = SUPERUSER;
  readonly major: Major;
  readonly port: number;
  readonly directory: string;
  readonly password: string;
  readonly #binaries: Binaries;
  #postmaster: ChildProcess | undefined;

  /** Use {@link startCluster}. */
  constructor(major: Major, port: number, directory: string, binaries: Binaries) {
    this.major = major;
    this.port = port;
    this.directory = directory;
    this.password = readFileSync(join(directory, 'password'), 'utf8').trim();
    this.#binaries = binaries;
  }

  /** process id of the postmaster; only while it runs */
  get pid(): number {
    invariant(this.#postmaster?.pid !== undefined, 'the cluster runs');
    return this.#postmaster.pid;
  }

  get running(): boolean {
    return this.#postmaster !== undefined;
  }

  /** what the server logged so far */
  get log(): string {
    return readFileSync(join(this.directory, 'postgres.log'), 'utf8');
  }

  endpoint(database: string): Endpoint {
    return { host: this.host, port: this.port, database, user: this.superuser, password: this.password };
  }

  /** Starts on the same port and data, and returns once connections are accepted. Nothing happens when it runs. */
  async start(): Promise<void> {
    if (this.#postmaster !== undefined) return;
    const log = openSync(join(this.directory, 'postgres.log'), 'a');
    const data = join(this.directory, 'data');
    const child = spawn(this.#binaries.postgres, ['-D', data, '-p', this.port.toString()], {
      ...this.#binaries.runAs,
      cwd: this.directory,
      env: serverEnvironment(),
      stdio: ['ignore', log, log],
      detached: true,
    });
    closeSync(log);
    child.once('error', () => (this.#postmaster = undefined));
    if (child.pid === undefined) throw this.#unavailable('the program could not be run');
    const pid = child.pid;
    // SIGQUIT: stops at once, recovers at the next start (PostgreSQL documentation, 18.5).
    watch({ pid, signal: 'SIGQUIT' });
    child.once('exit', () => {
      release(pid);
      if (this.#postmaster === child) this.#postmaster = undefined;
    });
    child.unref();
    this.#postmaster = child;
    await this.#untilReady(child, data);
  }

  /** Stops the cluster; nothing happens when it does not run. `immediate` leaves recovery to the next start. */
  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    const postmaster = this.#postmaster;
    if (postmaster?.pid === undefined) return;
    signalProcess(postmaster.pid, mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
    signalProcess(postmaster.pid, 'SIGCONT');
    if (await this.#endedWithin(STOP_DEADLINE_MS)) return;
    await this.kill();
  }

  /** The crash: SIGKILL for the postmaster and every backend at one moment, and waits for their end. */
  async kill(): Promise<void> {
    const pid = this.#postmaster?.pid;
    if (pid === undefined) return;
    // A frozen postmaster makes no new children while they are listed, nor notices that one of them dies.
    signalProcess(pid, 'SIGSTOP');
    // The postmaster last: a child that outlives it for a moment tells its client why it ends, as no crash does.
    const family = [...childrenOf(pid), pid];
    for (const member of family) signalProcess(member, 'SIGKILL');
    const ended = await holdsWithin(() => !family.some(isRunning), STOP_DEADLINE_MS);
    invariant(ended && (await this.#endedWithin(STOP_DEADLINE_MS)), 'SIGKILL ends a process');
  }

  /** Stops the cluster at once and removes its directory; may be called again. */
  async remove(): Promise<void> {
    await this.stop('immediate');
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
    keepAtEnd(this.directory);
  }

  async createDatabase(name: string): Promise<void> {
    await this.query('postgres', `CREATE DATABASE ${quoteIdentifier(name)}`);
  }

  /** Runs a statement (or several, without params) as superuser on a connection of its own; gives the last one's rows. */
  async query<T extends pg.QueryResultRow = Row>(
    database: string,
    sql: string,
    params?: readonly unknown[],
  ): Promise<readonly T[]> {
    const client = new pg.Client({ ...this.endpoint(database), application_name: 'cutover dev' });
    client.on('error', () => undefined);
    await client.connect();
    try {
      // pg answers an array when the text holds several statements; its types do not say so.
      const answer: pg.QueryResult<T> | pg.QueryResult<T>[] = await client.query<T>(sql, params && [...params]);
      const results: readonly pg.QueryResult<T>[] = [answer].flat();
      return results.at(-1)?.rows ?? [];
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  /** The state in the last line of postmaster.pid is what pg_ctl waits for as well (PostgreSQL sources, pg_ctl.c). */
  async #untilReady(child: ChildProcess, data: string): Promise<void> {
    const ended = (): boolean => child.exitCode !== null || child.signalCode !== null;
    const ready = (): boolean => {
      const [pid, , , , , , , state] = textOrNone(join(data, 'postmaster.pid')).split('\n');
      return Number(pid) === child.pid && state?.trim() === 'ready';
    };
    const decided = await holdsWithin(() => ended() || ready(), START_DEADLINE_MS);
    if (decided && !ended()) return;
    await this.stop('immediate');
    throw this.#unavailable(`it did not start:\n${this.log.slice(-LOG_TAIL_CHARACTERS)}`);
  }

  #endedWithin(deadlineMs: number): Promise<boolean> {
    return holdsWithin(() => this.#postmaster === undefined, deadlineMs);
  }

  #unavailable(problem: string): CutoverError {
    const server = `PostgreSQL ${this.major.toString()}`;
    return new CutoverError('dev_server_unavailable', {
      server,
      problem,
      remedy: `See ${this.directory}/postgres.log.`,
    });
  }
}

/** A database of a cluster: one shard, or the whole of a database without any. */
export interface Place {
  readonly cluster: Cluster;
  readonly database: string;
}

/** A server that starts removes what a killed one has left, at any moment: empty then. */
function textOrNone(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

/**
 * Starts a cluster of its own on a free port of 127.0.0.1 and returns once it accepts connections.
 *
 * As root the server runs as `nobody`. It ends with this process, even when that is killed; a temporary directory is
 * removed then as well. Takes less than a second, and one more when a machine has its first cluster of that major.
 *
 * @throws CutoverError `dev_server_unavailable` when the package is missing or the server does not come up
 */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const { major } = options;
  const binaries = postgresBinaries(major);
  const directory = options.directory ?? mkdtempSync(join(temporaryFolder(), `cutover-pg${major.toString()}-`));
  const temporary = options.directory === undefined;
  if (temporary) removeAtEnd(directory);
  try {
    if (temporary) return await startCopy(directory, binaries, options);
    if (!existsSync(join(directory, 'data', 'PG_VERSION'))) {
      mkdirSync(directory, { recursive: true });
      await runInitdb({
        directory,
        binaries,
        major,
        proof: proofOf(options),
        password: options.password ?? newPassword(),
      });
      writeSettings(directory, options);
    }
    return await startOnFreePort(major, directory, binaries);
  } catch (error) {
    if (temporary) rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}

/** A cluster from the template. It gets a password of its own, so that nobody gets in with that of another cluster. */
async function startCopy(directory: string, binaries: Binaries, options: ClusterOptions): Promise<Cluster> {
  const { major } = options;
  const password = await copyTemplate(directory, binaries, major, proofOf(options));
  writeSettings(directory, options);
  writePassword(directory, binaries, options.password ?? newPassword());
  const cluster = await startOnFreePort(major, directory, binaries);
  // Whatever the server is told to write down, this is not.
  const client = new pg.Client({ ...cluster.endpoint('postgres'), password, options: UNLOGGED });
  client.on('error', () => undefined);
  await client.connect();
  await client.query(`ALTER ROLE ${SUPERUSER} PASSWORD '${cluster.password}'`);
  await client.end();
  return cluster;
}

/** A port is free when it is found and may be taken a moment later, by somebody who asks the system at the same time. */
async function startOnFreePort(major: Major, directory: string, binaries: Binaries): Promise<Cluster> {
  for (let attempt = 1; ; attempt += 1) {
    const cluster = new Cluster(major, await freePort(), directory, binaries);
    try {
      await cluster.start();
      return cluster;
    } catch (error) {
      const taken = messageOf(error).includes(`already running on port ${cluster.port.toString()}?`);
      if (!taken || attempt >= PORT_ATTEMPTS_MAX) throw error;
    }
  }
}

/**
 * A physical standby of `primary` on a port of its own, made by a base backup over SQL (PostgreSQL documentation, 26.3.3) because
 * the packages have no pg_basebackup. It streams until {@link promoteInPlaceOf} or its removal.
 */
export async function startStandby(primary: Cluster, name: string): Promise<Cluster> {
  const { major } = primary;
  const binaries = postgresBinaries(major);
  const directory = mkdtempSync(join(temporaryFolder(), `cutover-pg${major.toString()}-`));
  removeAtEnd(directory);
  const data = join(directory, 'data');
  const client = new pg.Client(primary.endpoint('postgres'));
  client.on('error', () => undefined);
  await client.connect();
  try {
    const [start, stop] =
      major >= 15
        ? [`pg_backup_start('standby', true)`, 'pg_backup_stop(false)']
        : [`pg_start_backup('standby', true, false)`, 'pg_stop_backup(false, false)'];
    await client.query(`SELECT ${start}`);
    cpSync(join(primary.directory, 'data'), data, { recursive: true, filter: (path) => isBackedUp(path) });
    const { rows } = await client.query<{ labelfile: string }>(`SELECT labelfile FROM ${stop}`);
    for (const folder of ['pg_wal', 'pg_replslot', 'pg_stat_tmp']) mkdirSync(join(data, folder), { recursive: true });
    writeFileSync(join(data, 'backup_label'), rows[0]?.labelfile ?? '');
    writeFileSync(join(data, 'standby.signal'), '');
    const conninfo = `host=${primary.host} port=${primary.port.toString()} user=${SUPERUSER} application_name=${name}`;
    appendFileSync(join(data, 'postgresql.auto.conf'), `primary_conninfo = '${conninfo}'\nhot_standby = on\n`);
    writeFileSync(join(directory, 'password'), `${primary.password}\n`, { mode: 0o600 });
  } finally {
    await client.end();
  }
  giveAway(directory, binaries);
  return startOnFreePort(major, directory, binaries);
}

/** The standby becomes the primary at the address of the one it followed, which must have ended: as behind a virtual address. */
export async function promoteInPlaceOf(primary: Cluster, standby: Cluster): Promise<Cluster> {
  invariant(!primary.running, 'the primary has ended');
  await standby.query('postgres', 'SELECT pg_promote(true, 60)');
  await standby.stop();
  const promoted = new Cluster(standby.major, primary.port, standby.directory, postgresBinaries(standby.major));
  await promoted.start();
  return promoted;
}

const NOT_BACKED_UP = /\/data\/(postmaster\.(pid|opts)|pg_wal\/.+|pg_replslot\/.+|pg_stat_tmp\/.+|pg_internal\.init)$/;

/** What a base backup leaves out (PostgreSQL documentation, 26.3.4), and files that vanish while they are copied. */
function isBackedUp(path: string): boolean {
  return !NOT_BACKED_UP.test(path) && !/\/(pgsql_tmp|t\d+_\d+)/.test(path) && existsSync(path);
}

function giveAway(directory: string, { runAs }: Binaries): void {
  if (runAs)
    for (const path of ['', ...(readdirSync(directory, { recursive: true }) as string[])])
      chownSync(join(directory, path), runAs.uid, runAs.gid);
  chmodSync(directory, 0o700);
  chmodSync(join(directory, 'data'), 0o700);
}

function proofOf({ auth }: ClusterOptions): Proof {
  return auth === 'scram' ? 'scram-sha-256' : 'trust';
}

function writeSettings(directory: string, options: ClusterOptions): void {
  appendFileSync(join(directory, 'data', 'postgresql.conf'), settingsText(options));
}

function settingsText(options: ClusterOptions): string {
  const password = options.auth === 'scram' ? { password_encryption: 'scram-sha-256' } : {};
  const origins = options.major >= 18 ? { max_active_replication_origins: '40' } : {};
  const settings = { ...DEFAULT_SETTINGS, ...password, ...origins, ...options.settings };
  return Object.entries(settings)
    .map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`)
    .join('');
}
