/** One task: set up what a move needs: two clusters, Temporal, and the proxy in a process of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startCluster, type Cluster, type Major } from '../../dev/embedded-postgres.js';
import { keepAtEnd, removeAtEnd } from '../../dev/guardian.js';
import { LOOPBACK } from '../../dev/ports.js';
import { startTemporal, type TemporalDevServer } from '../../dev/temporal-dev-server.js';
import type { Endpoint } from '../../postgres/endpoint.js';
import type { Cleanup } from './cleanup.js';
import { randomPassword, writeConfiguration, type Configuration, type FurtherKeys } from './configuration.js';
import { startProgram } from './program.js';

export interface StageOptions {
  readonly from: Major;
  readonly to: Major;
  /** serve Temporal's web page */
  readonly ui: boolean;
  /** workers that share the proxy's port; default 1 */
  readonly nodes?: number;
  /** false: no engine in the proxy's process, the caller starts one apart; default true */
  readonly worker?: boolean;
  /** further lines of [general] */
  readonly general?: readonly string[];
  /** given the address of Temporal, answers the one that the proxy and its worker are to use; default the same */
  readonly temporalThrough?: (address: string) => Promise<string>;
  /** is told, in one sentence each, what takes long */
  readonly report: (sentence: string) => void;
}

export interface Stage {
  readonly source: Cluster;
  readonly destination: Cluster;
  readonly temporal: TemporalDevServer;
  readonly folder: string;
  readonly configuration: Configuration;
  /** where the application connects, through the proxy */
  readonly application: Endpoint;
  readonly proxyPid: number;
}

/** The names in pgdog.toml, and the database on both servers. */
export const SOURCE = 'prod';
export const DESTINATION = 'prod_new';
export const APPLICATION_USER = 'app';
const ENGINE_USER = 'migrator';
const DATABASE_NAME = 'prod';
const POOL_SIZE = 20;

/**
 * Starts everything; what was started is noted in `cleanup` at once, so that an interruption in the middle leaves nothing.
 *
 * The proxy runs apart from the application that is measured, as it does in earnest.
 *
 * @throws CutoverError `dev_server_unavailable`
 */
export async function setStage(options: StageOptions, cleanup: Cleanup): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), 'cutover-demo-'));
  removeAtEnd(folder);
  cleanup.defer(() => {
    rmSync(folder, { recursive: true, force: true });
    keepAtEnd(folder);
  });
  const passwords = { application: randomPassword(), engine: randomPassword() };
  const cluster = async (major: Major): Promise<Cluster> => {
    const started = await startCluster({ major, auth: 'scram' });
    cleanup.defer(() => started.remove());
    await makeDatabase(started, passwords);
    return started;
  };
  const temporal = async (): Promise<TemporalDevServer> => {
    const started = await startTemporal({ ui: options.ui, report: options.report });
    cleanup.defer(() => started.stop());
    return started;
  };
  const [from, to, server] = await allOrNothing([cluster(options.from), cluster(options.to), temporal()]);
  const address = (await options.temporalThrough?.(server.address)) ?? server.address;
  const configuration = await configure(folder, from, to, passwords, {
    general: [`default_pool_size = ${POOL_SIZE.toString()}`, 'cutover_save_config = true', ...(options.general ?? [])],
    temporal: { address, namespace: server.namespace },
  });
  const proxyPid = await startProxyProcess(folder, configuration, options, cleanup);
  const { port } = configuration;
  return {
    source: from,
    destination: to,
    temporal: server,
    folder,
    configuration,
    application: { host: LOOPBACK, port, database: SOURCE, user: APPLICATION_USER, password: passwords.application },
    proxyPid,
  };
}

/** Waits for all of them even when one fails, so that each has noted how it is taken down. */
async function allOrNothing<T extends readonly unknown[]>(work: {
  readonly [K in keyof T]: Promise<T[K]>;
}): Promise<T> {
  await Promise.allSettled(work);
  return await Promise.all(work);
}

interface Passwords {
  readonly application: string;
  readonly engine: string;
}

/** The application owns its database and is no superuser; the engine's role is one. */
async function makeDatabase(cluster: Cluster, passwords: Passwords): Promise<void> {
  await cluster.query(
    'postgres',
    `CREATE ROLE ${APPLICATION_USER} LOGIN PASSWORD '${passwords.application}';
     CREATE ROLE ${ENGINE_USER} LOGIN SUPERUSER PASSWORD '${passwords.engine}'`,
  );
  await cluster.query('postgres', `CREATE DATABASE ${DATABASE_NAME} OWNER ${APPLICATION_USER}`);
}

function configure(
  folder: string,
  source: Cluster,
  destination: Cluster,
  passwords: Passwords,
  further: FurtherKeys,
): Promise<Configuration> {
  const served = (name: string, { host, port }: Cluster): Parameters<typeof writeConfiguration>[1][number] => ({
    name,
    host,
    port,
    databaseName: DATABASE_NAME,
  });
  return writeConfiguration(
    folder,
    [served(SOURCE, source), served(DESTINATION, destination)],
    [
      { name: APPLICATION_USER, password: passwords.application, schemaAdmin: false },
      { name: ENGINE_USER, password: passwords.engine, schemaAdmin: true },
    ],
    further,
  );
}

async function startProxyProcess(
  folder: string,
  configuration: Configuration,
  { nodes = 1, worker = true }: StageOptions,
  cleanup: Cleanup,
): Promise<number> {
  const main = fileURLToPath(new URL('../main.js', import.meta.url));
  const { config, users } = configuration.files;
  const proxy = await startProgram({
    name: 'the proxy',
    command: process.execPath,
    args: [
      ...[main, 'serve', '--config', config, '--users', users, '--workers', nodes.toString()],
      ...(worker ? [] : ['--no-worker']),
    ],
    port: configuration.port,
    logFile: join(folder, 'proxy.log'),
  });
  cleanup.defer(() => proxy.stop());
  return proxy.pid;
}
