/** One task: tell what pools, clients and servers are doing, for SHOW POOLS, CLIENTS, SERVERS and STATS. */
import type { ClientSession } from './client-session.js';
import type { ClientCount, ClientStatus, PoolStats, PoolStatus, ServerStatus } from './contract.js';
import type { Visit } from './journal.js';
import type { Pool } from './pool.js';
import type { ServerConnection } from './server-connection.js';
import { wallTime } from './session-counters.js';

function stateOf(server: ServerConnection): 'idle' | 'active' | 'idle in transaction' {
  if (!server.replies.empty) return 'active';
  return server.idle ? 'idle' : 'idle in transaction';
}

/**
 * @param paused the gate of the pool's database is closed
 * @param seen what others know of its server
 */
export function poolStatus(pool: Pool, paused: boolean, seen: Pick<PoolStatus, 'ban' | 'replication'>): PoolStatus {
  const servers = [...pool.servers];
  const lent = servers.filter((server) => server.owner !== null);
  const idleInTransaction = lent.filter((server) => stateOf(server) === 'idle in transaction').length;
  const { endpoint, mode } = pool.options;
  return {
    id: pool.id,
    ...pool.label,
    host: endpoint.host,
    port: endpoint.port,
    clientsWaiting: pool.waitingCount,
    serversIdle: servers.length - lent.length,
    serversActive: lent.length - idleInTransaction,
    serversIdleInTransaction: idleInTransaction,
    longestWaitMs: pool.longestWaitMs,
    poolerMode: mode,
    paused,
    ...seen,
    errors: pool.counters.errors,
  };
}

export function serverStatuses(pool: Pool): readonly ServerStatus[] {
  const { endpoint } = pool.options;
  return [...pool.servers].map((server) => ({
    poolId: pool.id,
    database: pool.label.database,
    user: pool.label.user,
    host: endpoint.host,
    port: endpoint.port,
    state: stateOf(server),
    connectedAt: server.connectedAt,
    lastRequestAt: wallTime(server.lastRequestAt),
    remotePid: server.processId,
    clientId: server.owner === null || server.owner.id === 0 ? null : server.owner.id,
    transactions: server.transactions,
    queries: server.queries,
    rollbacks: server.rollbacks,
    preparedStatements: server.statements.count,
    errors: server.errors,
    bytesReceived: server.bytesReceived,
    bytesSent: server.bytesSent,
    tls: server.tls,
  }));
}

export function poolStats(pool: Pool): PoolStats {
  const { endpoint } = pool.options;
  const total = { ...pool.counters };
  for (const server of pool.servers) {
    total.bytesReceived += server.bytesReceived;
    total.bytesSent += server.bytesSent;
    total.errors += server.errors;
    total.rollbacks += server.rollbacks;
  }
  return { ...pool.label, host: endpoint.host, port: endpoint.port, ...total };
}

/** What a client did, once it has left. */
export function visitOf({ counters, channel }: ClientSession): Visit {
  const { queries, transactions, errors } = counters;
  const { bytesReceived, bytesSent } = channel;
  const durationMs = Date.now() - counters.connectedAt.getTime();
  return { durationMs, queries, transactions, bytesReceived, bytesSent, errors };
}

export function clientStatus(session: ClientSession): ClientStatus {
  const { counters } = session;
  return {
    id: session.id,
    user: session.user,
    database: session.database,
    host: counters.host,
    port: counters.port,
    state: clientState(session),
    connectedAt: counters.connectedAt,
    lastRequestAt: counters.lastRequestAt,
    queries: counters.queries,
    transactions: counters.transactions,
    waitMs: counters.waitMs,
    queryMs: counters.queryMs,
    transactionMs: counters.transactionMs,
    bytesReceived: session.channel.bytesReceived,
    bytesSent: session.channel.bytesSent,
    errors: counters.errors,
    applicationName: session.applicationName,
    preparedStatements: session.statements.count,
    tls: counters.tls,
  };
}

/** How many clients of each database are in each state, without a row for each client: there may be very many. */
export function clientCounts(databases: readonly string[], sessions: Iterable<ClientSession>): readonly ClientCount[] {
  const counts = new Map(databases.map((database) => [database, new Map(STATES.map((state) => [state, 0]))]));
  for (const session of sessions) {
    const states = counts.get(session.database);
    if (states === undefined || session.phase === 'leaving') continue;
    const state = clientState(session);
    states.set(state, (states.get(state) ?? 0) + 1);
  }
  return [...counts].flatMap(([database, states]) => [...states].map(([state, count]) => ({ database, state, count })));
}

const STATES: readonly ClientStatus['state'][] = ['idle', 'active', 'idle in transaction', 'waiting'];

function clientState(session: ClientSession): ClientStatus['state'] {
  const { phase, server } = session;
  if (phase === 'waiting' || phase === 'rerouting') return 'waiting';
  if (phase === 'sharing') return 'active';
  if (server === null || phase === 'idle') return 'idle';
  return stateOf(server);
}
