/**
 * One task: the checks on what a server has a fixed number of: slots, senders, workers, origins, locks, and disk for WAL.
 *
 * Who needs what: PostgreSQL documentation, 29.12 (logical replication, configuration settings). While tables are copied,
 * each running copy needs a slot and a sender on the publisher, a worker and an origin on the subscriber, beside the stream's own.
 */
import { largerThan } from '../ranges/cut.js';
import { mayWriteAsReplica } from '../copy-session.js';
import {
  combined,
  failed,
  listed,
  ok,
  rowOf,
  serverName,
  settingsOf,
  shardsOn,
  tablesToMove,
  TABLES_TO_MOVE,
  tableParameters,
  versionOf,
  warning,
} from './check.js';
import type { TableName } from '../fence.js';
import type { Finding, PreflightCheck, PreflightContext, PreflightSide, ServerShards } from './check.js';

interface Need {
  readonly side: PreflightSide;
  /** in words */
  readonly server: string;
  /** below this the move cannot run */
  readonly least: number;
  /** below this copies wait for each other */
  readonly wanted: number;
}

const ORIGINS_OF_THEIR_OWN_SINCE = 180_000;

/**
 * What the two directions need of each server: forward with copies, and the way back without. A shard has a stream with every one of the other
 * side in each direction; a server with several shards, of one side or of both, needs the sum.
 */
function needs(context: PreflightContext, copiesOn: 'source' | 'destination'): readonly Need[] {
  const copies = context.config.cutover.parallelCopies;
  const { source, destination } = context.shards ?? { source: 1, destination: 1 };
  const streams = { source: destination, destination: source };
  return (['source', 'destination'] as const).map((role) => {
    const here = shardsOn(context, role);
    const count = here.source * streams.source + here.destination * streams.destination;
    const copying = here[copiesOn] * streams[copiesOn];
    return {
      side: context[role],
      server: serverName(context, role),
      least: count + Math.min(1, copying),
      wanted: count + copying * copies,
    };
  });
}

async function capacity(
  list: readonly Need[],
  what: string,
  read: (side: PreflightSide) => Promise<{ setting: string; limit: number; used: number }>,
): Promise<Finding> {
  const findings: Finding[] = [];
  for (const { side, server, least, wanted } of list) {
    const { setting, limit, used } = await read(side);
    const free = Math.max(0, limit - used);
    const detail = `The ${server} has ${free.toString()} of ${limit.toString()} ${what} free; ${wanted.toString()} are wanted.`;
    const remedy = raise(setting, used + wanted, server);
    findings.push(free < least ? failed(detail, remedy) : free < wanted ? warning(detail, remedy) : ok(detail));
  }
  return combined(findings);
}

function raise(setting: string, value: number, server: string): string {
  return `Raise ${setting} on the ${server} to ${value.toString()} or more (ALTER SYSTEM SET ${setting} = ${value.toString()};) and restart it.`;
}

async function limitOf(side: PreflightSide, setting: string): Promise<number> {
  return Number((await settingsOf(side, [setting])).get(setting) ?? 0);
}

async function countOf(side: PreflightSide, from: string): Promise<number> {
  return (await rowOf<{ n: number }>(side, `SELECT count(*)::int AS n FROM ${from}`)).n;
}

export const slotCapacity: PreflightCheck = {
  id: 'replication-slots',
  title: 'Free replication slots',
  run: (context) =>
    capacity(needs(context, 'source'), 'replication slots', async (side) => ({
      setting: 'max_replication_slots',
      limit: await limitOf(side, 'max_replication_slots'),
      used: await countOf(side, 'pg_replication_slots'),
    })),
};

export const senderCapacity: PreflightCheck = {
  id: 'wal-senders',
  title: 'Free WAL senders',
  run: (context) =>
    capacity(needs(context, 'source'), 'WAL senders', async (side) => ({
      setting: 'max_wal_senders',
      limit: await limitOf(side, 'max_wal_senders'),
      used: await countOf(side, 'pg_stat_replication'),
    })),
};

/** Three limits stand behind one another; the one with the least left is the one that counts. */
export const workerCapacity: PreflightCheck = {
  id: 'replication-workers',
  title: 'Free logical replication workers',
  run: (context) =>
    capacity(needs(context, 'destination'), 'logical replication workers', async (side) => {
      const workers = {
        setting: 'max_logical_replication_workers',
        limit: await limitOf(side, 'max_logical_replication_workers'),
        used: await countOf(side, 'pg_stat_subscription WHERE pid IS NOT NULL'),
      };
      const processes = {
        setting: 'max_worker_processes',
        limit: await limitOf(side, 'max_worker_processes'),
        used: await countOf(
          side,
          `pg_stat_activity WHERE backend_type LIKE 'logical replication%' OR backend_type ~ 'worker$'`,
        ),
      };
      return workers.limit - workers.used <= processes.limit - processes.used ? workers : processes;
    }),
};

/** One for each of its purposes (src/postgres/connections.ts), and one for work on the schema. */
const ENGINE_CONNECTIONS = 8;

/**
 * Senders and workers of the streams are not among them: they have limits of their own since PostgreSQL 12. What counts is the engine's own, and what
 * the proxies will open to a destination: a pool for each user and shard, one to the coordinator beside shard 0, and from each of its
 * connections one to every shard. Ranges of large tables are read and written over connections of their own.
 */
export const connectionCapacity: PreflightCheck = {
  id: 'connections',
  title: 'Free connections',
  async run(context) {
    const { source, destination } = context.shards ?? { source: 1, destination: 1 };
    const each = (await largeTables(context)).length > 0 ? context.config.cutover.parallelCopies : 0;
    const list = (['source', 'destination'] as const).map((role) => {
      const here = shardsOn(context, role);
      const least = (here.source + here.destination) * ENGINE_CONNECTIONS;
      const ranges = (here.source * destination + here.destination * source) * each;
      const wanted = least + pooled(context, here) + ranges;
      return { side: context[role], server: serverName(context, role), least, wanted };
    });
    return capacity(list, 'connections', async (side) => {
      const settings = await settingsOf(side, [
        'max_connections',
        'superuser_reserved_connections',
        'reserved_connections',
      ]);
      const of = (name: string): number => Number(settings.get(name) ?? 0);
      const reserved = of('superuser_reserved_connections') + of('reserved_connections');
      const used = await countOf(
        side,
        `pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`,
      );
      return { setting: 'max_connections', limit: of('max_connections'), used: used + reserved };
    });
  },
};

/** Those of this source that are copied in ranges, as far as the role may. */
async function largeTables(context: PreflightContext): Promise<readonly TableName[]> {
  const { copyRangeBytes, parallelCopies } = context.config.cutover;
  if (copyRangeBytes === 0 || parallelCopies === 1) return [];
  return largerThan(context.source.connection, await tablesToMove(context), copyRangeBytes);
}

/** Of all proxies, at most, to the shards of the destination on one server. */
function pooled({ config, destination, shards }: PreflightContext, here: ServerShards): number {
  const primary = config.databases.find(({ name, role }) => name === destination.name && role !== 'replica');
  const sizes = config.users
    .filter(({ database }) => database === destination.name)
    .map(({ poolSize }) => poolSize ?? primary?.poolSize ?? config.general.defaultPoolSize);
  const pool = sizes.reduce((sum, size) => sum + size, 0) * Math.max(1, config.nodes.length);
  if ((shards?.destination ?? 1) === 1) return here.destination * pool;
  return here.destination * 2 * pool + (here.coordinator ? pool : 0);
}

/** Beyond it the launcher starts no further copy of one subscription, without a word (PostgreSQL documentation, 20.6.4). */
export const copyCapacity: PreflightCheck = {
  id: 'parallel-copies',
  title: 'Copies at once',
  async run(context) {
    const { destination, config } = context;
    const wanted = config.cutover.parallelCopies;
    const setting = 'max_sync_workers_per_subscription';
    const limit = await limitOf(destination, setting);
    const detail = `resharding_parallel_copies is ${wanted.toString()}; the destination copies ${limit.toString()} tables of a move at once.`;
    const remedy = `Set ${setting} = ${wanted.toString()} at the destination; a reload is enough.`;
    if (limit === 0) return failed(detail, remedy);
    return combined([limit < wanted ? warning(detail, remedy) : ok(detail), await rangesFinding(context)]);
  },
};

async function rangesFinding(context: PreflightContext): Promise<Finding> {
  const tables = await largeTables(context);
  if (tables.length === 0) return ok('');
  const names = listed(tables.map(({ schema, table }) => `${schema}.${table}`));
  if (await mayWriteAsReplica(context.destination.connection)) return ok(`Copied in ranges: ${names}.`);
  return warning(
    `The schema_admin may not set session_replication_role at the destination, so large tables are not copied in ranges: ${names}.`,
    `Grant it there: GRANT SET ON PARAMETER session_replication_role TO "${context.destination.endpoint.user}"; or leave it.`,
  );
}

/** Until 17 max_replication_slots limits origins too (PostgreSQL documentation, 20.6.4). */
export const originCapacity: PreflightCheck = {
  id: 'replication-origins',
  title: 'Free replication origins',
  run: (context) =>
    capacity(needs(context, 'destination'), 'replication origins', async (side) => {
      const own = (await versionOf(side)) >= ORIGINS_OF_THEIR_OWN_SINCE;
      const setting = own ? 'max_active_replication_origins' : 'max_replication_slots';
      return { setting, limit: await limitOf(side, setting), used: await countOf(side, 'pg_replication_origin') };
    }),
};

/**
 * The seal locks every table at once, the schema is made in one transaction that locks every new relation. The lock table
 * holds max_locks_per_transaction × (max_connections + max_prepared_transactions) (PostgreSQL documentation, 20.12).
 */
export const lockTable: PreflightCheck = {
  id: 'lock-table',
  title: 'Room in the lock table',
  async run(context) {
    const tables = (await tablesToMove(context)).length;
    const relations = await countOf(
      context.source,
      `pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't' AND c.oid >= 16384 AND n.nspname <> 'cutover'`,
    );
    return combined([
      await lockFinding(context.source, 'source', tables),
      await lockFinding(context.destination, 'destination', relations),
    ]);
  },
};

async function lockFinding(side: PreflightSide, role: string, needed: number): Promise<Finding> {
  const names = ['max_locks_per_transaction', 'max_connections', 'max_prepared_transactions'];
  const settings = await settingsOf(side, names);
  const [perTransaction = 0, connections = 0, prepared = 0] = names.map((name) => Number(settings.get(name) ?? 0));
  const room = perTransaction * (connections + prepared);
  const detail = `One transaction on the ${role} locks ${needed.toString()} relations; there is room for ${room.toString()} in all.`;
  const enough = Math.ceil((2 * needed) / Math.max(1, connections + prepared));
  const remedy = `Raise max_locks_per_transaction on the ${role} to ${enough.toString()} or more and restart it.`;
  if (needed > room) return failed(detail, remedy);
  return needed > room / 2 ? warning(detail, remedy) : ok(detail);
}

/** While a copy runs the slot keeps all WAL written meanwhile (PostgreSQL documentation, 20.6.1, max_slot_wal_keep_size). */
export const walDisk: PreflightCheck = {
  id: 'wal-disk',
  title: 'Disk for WAL on the source',
  async run(context) {
    const { source } = context;
    const settings = await settingsOf(source, ['max_slot_wal_keep_size', 'idle_replication_slot_timeout']);
    const keepMegabytes = Number(settings.get('max_slot_wal_keep_size') ?? -1);
    const idleTimeout = Number(settings.get('idle_replication_slot_timeout') ?? 0);
    const { bytes } = await rowOf<{ bytes: number }>(
      source,
      `SELECT coalesce(sum(pg_table_size(c.oid)), 0)::float8 AS bytes
       FROM ${TABLES_TO_MOVE}`,
      tableParameters(await tablesToMove(context)),
    );
    const findings = [walKeepFinding(keepMegabytes * 1024 * 1024, bytes)];
    if (idleTimeout > 0)
      findings.push(
        warning(
          'idle_replication_slot_timeout is set on the source: a stream that rests that long loses its slot.',
          'Set idle_replication_slot_timeout = 0 for the time of the move; a reload is enough.',
        ),
      );
    const walBytes = await walDirectoryBytes(source);
    if (walBytes !== null) findings.push(ok(`The WAL directory holds ${megabytes(walBytes)} now.`));
    return combined(findings);
  },
};

function walKeepFinding(keepBytes: number, tableBytes: number): Finding {
  const size = `The tables to copy have ${megabytes(tableBytes)}`;
  if (keepBytes < 0)
    return ok(`${size}; WAL is kept without a limit while they are copied: see that the disk has room.`);
  const detail = `${size}; a slot may keep ${megabytes(keepBytes)} of WAL, and is lost when more is written during the copy.`;
  if (keepBytes >= tableBytes) return ok(detail);
  return warning(detail, 'Raise max_slot_wal_keep_size on the source (-1: no limit); a reload is enough.');
}

/** pg_ls_waldir is for pg_monitor (PostgreSQL documentation, 9.28.9); null where it may not be called. */
async function walDirectoryBytes(side: PreflightSide): Promise<number | null> {
  const { allowed } = await rowOf<{ allowed: boolean }>(
    side,
    `SELECT has_function_privilege('pg_ls_waldir()', 'EXECUTE') AS allowed`,
  );
  if (!allowed) return null;
  return (await rowOf<{ bytes: number }>(side, 'SELECT coalesce(sum(size), 0)::float8 AS bytes FROM pg_ls_waldir()'))
    .bytes;
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024).toString()} MB`;
}
