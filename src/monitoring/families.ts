/**
 * One task: the table of every metric: its name, what it means, and where its samples come from.
 *
 * Names that PgDog has for the same thing are PgDog's, with its labels and units; the others say their unit. `docs/monitoring.md`
 * lists the same rows; a test compares the two.
 */
import { GATE_REASONS, type Figures } from './figures.js';
import type { Family, FamilyType, Labels, Sample } from './openmetrics.js';

export interface FamilyRow {
  readonly name: string;
  readonly type: FamilyType;
  readonly help: string;
  readonly samples: (figures: Figures) => readonly Sample[];
}

type PoolFigures = Figures['pools'][number];

function perPool(name: string, type: FamilyType, help: string, value: (pool: PoolFigures) => number): FamilyRow {
  const labels = ({ user, database, host, port, shard, role }: PoolFigures): Labels => ({
    ...{ user, database, host, port, shard, role },
  });
  return {
    name,
    type,
    help,
    samples: ({ pools }) => pools.map((pool) => ({ labels: labels(pool), value: value(pool) })),
  };
}

function single(name: string, type: FamilyType, help: string, value: (figures: Figures) => number): FamilyRow {
  return { name, type, help, samples: (figures) => [{ labels: {}, value: value(figures) }] };
}

function perRouter(
  name: string,
  type: FamilyType,
  help: string,
  value: (router: Figures['routers'][number]) => number,
): FamilyRow {
  const samples = ({ routers }: Figures): readonly Sample[] =>
    routers.map((router) => ({ labels: { database: router.database }, value: value(router) }));
  return { name, type, help, samples };
}

const CLIENTS: readonly FamilyRow[] = [
  {
    name: 'clients',
    type: 'gauge',
    help: 'Clients that have logged in, by what they do.',
    samples: ({ clients }) =>
      clients.map(({ database, state, count }) => ({ labels: { database, state }, value: count })),
  },
  single('client_connections', 'counter', 'Clients that have logged in.', ({ journal }) => journal.connections),
  single('client_disconnections', 'counter', 'Clients that have left.', ({ journal }) => journal.disconnections),
  {
    name: 'client_errors',
    type: 'counter',
    help: 'Errors of the proxy itself that clients were told, by their code.',
    samples: ({ journal }) => journal.errors.map(({ code, count }) => ({ labels: { code }, value: count })),
  },
];

const POOLS: readonly FamilyRow[] = [
  perPool('cl_waiting', 'gauge', 'Clients that wait for a server connection.', (pool) => pool.clientsWaiting),
  perPool(
    'maxwait',
    'gauge',
    'How long the first of them has waited, in seconds.',
    (pool) => pool.longestWaitMs / 1_000,
  ),
  perPool('sv_active', 'gauge', 'Server connections that run a statement.', (pool) => pool.serversActive),
  perPool('sv_idle', 'gauge', 'Server connections that nobody uses.', (pool) => pool.serversIdle),
  perPool(
    'sv_idle_xact',
    'gauge',
    'Server connections idle in a transaction.',
    (pool) => pool.serversIdleInTransaction,
  ),
  perPool('max_connections', 'gauge', 'Server connections the pool may open.', (pool) => pool.size),
  perPool(
    'errors',
    'counter',
    'Errors of server connections, and waits that ended without one.',
    (pool) => pool.errors,
  ),
  perPool('total_xact_count', 'counter', 'Transactions.', (pool) => pool.transactions),
  perPool('total_query_count', 'counter', 'Queries.', (pool) => pool.queries),
  perPool('total_received', 'counter', 'Bytes received from the server.', (pool) => pool.bytesReceived),
  perPool('total_sent', 'counter', 'Bytes sent to the server.', (pool) => pool.bytesSent),
  perPool('total_xact_time', 'counter', 'Time in transactions, in milliseconds.', (pool) => pool.transactionMs),
  perPool('total_query_time', 'counter', 'Time in queries, in milliseconds.', (pool) => pool.queryMs),
  perPool(
    'total_wait_time',
    'counter',
    'Time clients waited for a server connection, in milliseconds.',
    (pool) => pool.waitMs,
  ),
  perPool(
    'total_server_assignment_count',
    'counter',
    'Server connections lent to clients.',
    (pool) => pool.serverAssignments,
  ),
  perPool(
    'total_rollbacks',
    'counter',
    'Transactions rolled back because their client left.',
    (pool) => pool.rollbacks,
  ),
  perPool('total_shared_reads', 'counter', 'Reads that shared a server connection.', (pool) => pool.sharedReads),
  perPool('total_connect_count', 'counter', 'Server connections opened.', (pool) => pool.connects),
  perPool('total_connect_time', 'counter', 'Time it took to open them, in milliseconds.', (pool) => pool.connectMs),
  {
    name: 'server_up',
    type: 'gauge',
    help: '1: a connection to the server is open; 0: the last attempt failed; no sample: not tried.',
    samples: ({ servers }) =>
      servers
        .filter(({ state }) => state !== 'unknown')
        .map(({ database, shard, host, port, state }) => {
          return { labels: { database, host, port, shard }, value: state === 'reached' ? 1 : 0 };
        }),
  },
];

const CUTOVERS: readonly FamilyRow[] = [
  {
    name: 'gate_closed',
    type: 'gauge',
    help: '1: the clients of the database are held at a transaction boundary for this reason.',
    samples: ({ gates }) =>
      gates.flatMap(({ database, reasons }) =>
        GATE_REASONS.map((reason) => ({ labels: { database, reason }, value: reasons.includes(reason) ? 1 : 0 })),
      ),
  },
  {
    name: 'gate_clients_held',
    type: 'gauge',
    help: 'Clients that wait until the gate of the database opens.',
    samples: ({ gates }) => gates.map(({ database, clientsHeld }) => ({ labels: { database }, value: clientsHeld })),
  },
  {
    name: 'gate_pauses',
    type: 'counter',
    help: 'Times this process has held the clients for a cutover, a rollback, a rehearsal or an attempt that was aborted.',
    samples: ({ gates }) => gates.map(({ database, pauses }) => ({ labels: { database }, value: pauses })),
  },
  {
    name: 'gate_last_pause_seconds',
    type: 'gauge',
    help: 'How long the last of them lasted; no sample: there was none since start.',
    samples: ({ gates }) =>
      gates.flatMap(({ database, lastPauseMs }) =>
        lastPauseMs === null ? [] : [{ labels: { database }, value: lastPauseMs / 1_000 }],
      ),
  },
  {
    name: 'epoch_seen',
    type: 'gauge',
    help: 'The highest epoch this process has heard of.',
    samples: ({ epochs }) => epochs.map(({ database, epochSeen }) => ({ labels: { database }, value: epochSeen })),
  },
  {
    name: 'epoch_resolved',
    type: 'gauge',
    help: 'The highest epoch on whose decision this process has acted.',
    samples: ({ epochs }) =>
      epochs.map(({ database, epochResolved }) => ({ labels: { database }, value: epochResolved })),
  },
];

const REST: readonly FamilyRow[] = [
  perRouter('query_cache_hits', 'counter', 'Statements whose route was kept.', ({ hits }) => hits),
  perRouter('query_cache_misses', 'counter', 'Statements that were analysed.', ({ misses }) => misses),
  perRouter('query_cache_size', 'gauge', 'Texts whose route is kept.', ({ entries }) => entries),
  perRouter('query_cache_bytes', 'gauge', 'What they take.', ({ bytes }) => bytes),
  single('prepared_statements', 'gauge', 'Prepared statements kept.', ({ statements }) => statements),
  single(
    'prepared_statements_limit',
    'gauge',
    'The most a server connection keeps.',
    (figures) => figures.statementsLimit,
  ),
  {
    name: 'build',
    type: 'info',
    help: 'The version that runs.',
    samples: (figures) => [{ labels: { version: figures.process.version }, value: 1 }],
  },
  single(
    'log_lines_dropped',
    'counter',
    'Lines of the log that were thrown away because nobody read them.',
    (figures) => figures.process.droppedLines,
  ),
  single(
    'process_start_time_seconds',
    'gauge',
    'When it was started, since 1970.',
    (figures) => figures.process.startedAtMs / 1_000,
  ),
  single(
    'process_cpu_seconds',
    'counter',
    'Processor time, of the user and of the system.',
    (figures) => figures.process.cpuSeconds,
  ),
  single('process_resident_memory_bytes', 'gauge', 'Memory in use.', (figures) => figures.process.residentBytes),
];

/** Every metric there is, in the order in which they are written; WORKER_UP is beside them. */
export const FAMILIES: readonly FamilyRow[] = [...CLIENTS, ...POOLS, ...CUTOVERS, ...REST];

/** Where several workers share the port. */
export const WORKER_UP: Omit<FamilyRow, 'samples'> = {
  name: 'worker_up',
  type: 'gauge',
  help: '1: the figures of this worker are among these; 0: it did not answer, or is being started.',
};

/** Figures of one worker; null: it did not answer. */
export interface WorkerFigures {
  readonly worker: string;
  readonly figures: Figures | null;
}

/** The families of the only process there is. */
export function familiesOf(figures: Figures): readonly Family[] {
  return FAMILIES.map(({ samples, ...family }) => ({ ...family, samples: samples(figures) }));
}

/** The families of several workers: each sample says whose it is, and none is added up, so that a worker that is away is seen. */
export function familiesOfWorkers(workers: readonly WorkerFigures[]): readonly Family[] {
  const families = FAMILIES.map(({ samples, ...family }): Family => {
    const labelled = workers.flatMap(({ worker, figures }) =>
      (figures === null ? [] : samples(figures)).map(({ labels, value }) => ({ labels: { ...labels, worker }, value })),
    );
    return { ...family, samples: labelled };
  });
  const up = workers.map(({ worker, figures }) => ({ labels: { worker }, value: figures === null ? 0 : 1 }));
  return [...families, { ...WORKER_UP, samples: up }];
}
