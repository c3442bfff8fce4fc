/** One task: SHOW POOLS, SHOW BANS, SHOW REPLICATION and SHOW STATS. */
import type { Config } from '../config/config.js';
import type { AdminResult, PoolStats, PoolStatus } from '../proxy/contract.js';
import { bigint, bool, numeric, table, text, type Column } from './table.js';

/** What is counted per server and never happens here has a fixed value, so that PgDog's dashboards keep working. */
export function showPools(pools: readonly PoolStatus[], config: Config): AdminResult {
  const isSchemaAdmin = ({ user, database }: PoolStatus): boolean =>
    config.users.some((entry) => entry.name === user && entry.database === database && entry.schemaAdmin);
  const columns: readonly Column<PoolStatus>[] = [
    bigint('id', (pool) => pool.id),
    ...where<PoolStatus>(),
    bigint('cl_waiting', (pool) => pool.clientsWaiting),
    bigint('sv_idle', (pool) => pool.serversIdle),
    bigint('sv_active', (pool) => pool.serversActive),
    bigint('sv_idle_xact', (pool) => pool.serversIdleInTransaction),
    bigint('sv_total', (pool) => pool.serversIdle + pool.serversActive + pool.serversIdleInTransaction),
    bigint('maxwait', (pool) => Math.floor(pool.longestWaitMs / 1_000)),
    bigint('maxwait_us', (pool) => (pool.longestWaitMs % 1_000) * 1_000),
    text('pool_mode', (pool) => pool.poolerMode),
    bool('paused', (pool) => pool.paused),
    bool('banned', ({ ban }) => ban !== null),
    bool('healthy', ({ ban }) => ban === null),
    bigint('errors', (pool) => pool.errors),
    bigint('re_synced', () => 0),
    bigint('out_of_sync', () => 0),
    bigint('force_closed', () => 0),
    bool('online', () => true),
    bool('schema_admin', isSchemaAdmin),
  ];
  return table(columns, pools);
}

/** Replicas that get no reads. */
export function showBans(pools: readonly PoolStatus[]): AdminResult {
  const columns: readonly Column<PoolStatus>[] = [
    bigint('id', (pool) => pool.id),
    ...where<PoolStatus>(),
    text('ban_reason', ({ ban }) => ban?.reason ?? null),
    bigint('ban_time_left', ({ ban }) => ban?.leftMs ?? null),
  ];
  return table(
    columns,
    pools.filter(({ ban }) => ban !== null),
  );
}

/** How far the server of each pool is. The last column is not PgDog's. */
export function showReplication(pools: readonly PoolStatus[]): AdminResult {
  const columns: readonly Column<PoolStatus>[] = [
    bigint('id', (pool) => pool.id),
    ...where<PoolStatus>(),
    text('replica_lag', ({ replication }) => rounded(replication?.lagMs)),
    text('pg_lsn', ({ replication }) => (replication === null ? null : lsnText(replication.lsn))),
    bigint('lsn_age', ({ replication }) => replication?.lsnAgeMs ?? null),
    bool('pg_is_in_recovery', ({ replication }) => replication?.recovering ?? null),
    bigint('replica_lag_bytes', ({ replication }) => replication?.lagBytes ?? null),
  ];
  return table(columns, pools);
}

function rounded(ms: number | null | undefined): string | null {
  return ms === null || ms === undefined ? null : Math.round(ms).toString();
}

/** As PostgreSQL writes it: both halves in hexadecimal. */
function lsnText(lsn: bigint): string {
  const half = (bits: bigint): string => BigInt.asUintN(32, bits).toString(16).toUpperCase();
  return `${half(lsn >> 32n)}/${half(lsn)}`;
}

/** Totals since start, and averages since start: counts by the second, times by transaction, query or connection. */
export function showStats(stats: readonly PoolStats[], uptimeMs: number): AdminResult {
  const seconds = Math.max(1, uptimeMs / 1_000);
  const counts: Readonly<Record<string, (pool: PoolStats) => number>> = {
    xact_count: (pool) => pool.transactions,
    xact_2pc_count: () => 0,
    query_count: (pool) => pool.queries,
    server_assignment_count: (pool) => pool.serverAssignments,
    received: (pool) => pool.bytesReceived,
    sent: (pool) => pool.bytesSent,
    xact_time: (pool) => pool.transactionMs,
    idle_xact_time: () => 0,
    query_time: (pool) => pool.queryMs,
    wait_time: (pool) => pool.waitMs,
    server_parse_count: (pool) => pool.parses,
    bind_count: (pool) => pool.binds,
    close_count: () => 0,
    errors: (pool) => pool.errors,
    cleaned: () => 0,
    rollbacks: (pool) => pool.rollbacks,
    connect_time: (pool) => pool.connectMs,
    connect_count: (pool) => pool.connects,
    ...Object.fromEntries(
      ['reads', 'writes', 'auth_attempts', 'rows_inserted', 'rows_updated', 'rows_deleted'].map((name) => [
        name,
        () => 0,
      ]),
    ),
  };
  const divisors: Readonly<Record<string, (pool: PoolStats) => number>> = {
    xact_time: (pool) => pool.transactions,
    query_time: (pool) => pool.queries,
    wait_time: (pool) => pool.serverAssignments,
    connect_time: (pool) => pool.connects,
  };
  const columns = Object.entries(counts).flatMap(([name, count]): Column<PoolStats>[] => {
    const divisor = divisors[name];
    const average = (pool: PoolStats): number => count(pool) / (divisor ? Math.max(1, divisor(pool)) : seconds);
    return name.endsWith('_time')
      ? [numeric(`total_${name}`, count), numeric(`avg_${name}`, average)]
      : [bigint(`total_${name}`, count), numeric(`avg_${name}`, average)];
  });
  const totals = columns.filter((column) => column.name.startsWith('total_'));
  const averages = columns.filter((column) => column.name.startsWith('avg_'));
  return table([...where<PoolStats>(), ...totals, ...averages], stats);
}

interface Place {
  readonly database: string;
  readonly user: string;
  readonly host: string;
  readonly port: number;
  readonly shard: number;
  readonly role: string;
}

function where<Row extends Place>(): readonly Column<Row>[] {
  return [
    text('database', (row) => row.database),
    text('user', (row) => row.user),
    text('addr', (row) => row.host),
    bigint('port', (row) => row.port),
    bigint('shard', (row) => row.shard),
    text('role', (row) => row.role),
  ];
}
