/** One task: set up what a move needs: the clusters of both sides, Temporal, and the proxy in a process of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Cluster, Major, Place } from '../../dev/embedded-postgres.js';
import { keepAtEnd, removeAtEnd } from '../../dev/guardian.js';
import { LOOPBACK } from '../../dev/ports.js';
import { startTemporal, type TemporalDevServer } from '../../dev/temporal-dev-server.js';
import type { Endpoint } from '../../postgres/endpoint.js';
import type { Cleanup } from './cleanup.js';
import {
  randomPassword,
  writeConfiguration,
  type Configuration,
  type FurtherKeys,
  type Login,
  type ServedDatabase,
} from './configuration.js';
import { startProgram } from './program.js';
import { allOrNothing, startSides, type Sides } from './sides.js';

export interface StageOptions {
  readonly from: Major;
  readonly to: Major;
  /** a destination of several shards; absent: one database */
  readonly sharding?: Sharding | undefined;
  /** serve Temporal's web page */
  readonly ui: boolean;
  /** workers that share the proxy's port; default 1 */
  readonly nodes?: number;
  /** false: no engine in the proxy's process, the caller starts one apart; default true */
  readonly worker?: boolean;
  /** further lines of [general] */
  readonly general?: readonly string[];
  /** the built program that serves; default the one beside this file */
  readonly program?: string;
  /** given the address of Temporal, answers the one that the proxy and its worker are to use; default the same */
  readonly temporalThrough?: (address: string) => Promise<string>;
  /** is told, in one sentence each, what takes long */
  readonly report: (sentence: string) => void;
}

export interface Sharding {
  readonly shards: number;
  /** a bigint: tables that have it are spread by its hash, all others are the same on every shard */
  readonly column: string;
}

export interface Stage {
  readonly source: Cluster;
  /** where the destination, or the first of its shards, is */
  readonly destination: Cluster;
  /** the databases of both sides, the destination's shard by shard */
  readonly sides: Sides;
  readonly temporal: TemporalDevServer;
  readonly folder: string;
  readonly configuration: Configuration;
  /** where the application connects, through the proxy */
  readonly application: Endpoint;
  readonly proxyPid: number;
}

/** The names in pgdog.toml, and the database on the servers. */
export const SOURCE = 'prod';
export const DESTINATION = 'prod_new';
export const SHARDED_DESTINATION = 'prod_sharded';
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
  cleanup.defer('the folder', () => {
    rmSync(folder, { recursive: true, force: true });
    keepAtEnd(folder);
  });
  const logins = [
    { name: APPLICATION_USER, password: randomPassword(), schemaAdmin: false },
    { name: ENGINE_USER, password: randomPassword(), schemaAdmin: true },
  ] as const;
  const temporal = async (): Promise<TemporalDevServer> => {
    const started = await startTemporal({ ui: options.ui, report: options.report });
    cleanup.defer('Temporal', () => started.stop());
    return started;
  };
  const { from, to, sharding } = options;
  const started = startSides({ from, to, shards: sharding?.shards, database: DATABASE_NAME, logins }, cleanup);
  const [sides, server] = await allOrNothing([started, temporal()]);
  const address = (await options.temporalThrough?.(server.address)) ?? server.address;
  const configuration = await configure(folder, sides, logins, sharding, {
    general: [`default_pool_size = ${POOL_SIZE.toString()}`, 'cutover_save_config = true', ...(options.general ?? [])],
    temporal: { address, namespace: server.namespace },
  });
  const proxyPid = await startProxyProcess(folder, configuration, options, cleanup);
  const { port } = configuration;
  return {
    source: sides.source.cluster,
    destination: sides.destination[0].cluster,
    sides,
    temporal: server,
    folder,
    configuration,
    application: { host: LOOPBACK, port, database: SOURCE, user: APPLICATION_USER, password: logins[0].password },
    proxyPid,
  };
}

function configure(
  folder: string,
  { source, destination }: Sides,
  logins: readonly Login[],
  sharding: Sharding | undefined,
  further: FurtherKeys,
): Promise<Configuration> {
  const to = sharding === undefined ? DESTINATION : SHARDED_DESTINATION;
  const served = (name: string, { cluster, database }: Place, shard: number): ServedDatabase => ({
    name,
    host: cluster.host,
    port: cluster.port,
    databaseName: database,
    shard,
  });
  const databases = [served(SOURCE, source, 0), ...destination.map((place, shard) => served(to, place, shard))];
  const shardedTables = sharding === undefined ? [] : [{ database: to, column: sharding.column, dataType: 'bigint' }];
  return writeConfiguration(folder, databases, logins, { ...further, shardedTables });
}

async function startProxyProcess(
  folder: string,
  configuration: Configuration,
  { nodes = 1, worker = true, program = fileURLToPath(new URL('../main.js', import.meta.url)) }: StageOptions,
  cleanup: Cleanup,
): Promise<number> {
  const { config, users } = configuration.files;
  const proxy = await startProgram({
    name: 'the proxy',
    command: process.execPath,
    args: [
      ...[program, 'serve', '--config', config, '--users', users, '--workers', nodes.toString()],
      ...(worker ? [] : ['--no-worker']),
    ],
    port: configuration.port,
    logFile: join(folder, 'proxy.log'),
  });
  cleanup.defer('the proxy', () => proxy.stop());
  return proxy.pid;
}
