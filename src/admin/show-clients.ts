/** One task: SHOW CLIENTS and SHOW SERVERS, with the columns a client asks for. */
import type { AdminResult, ClientStatus, ServerStatus } from '../proxy/contract.js';
import { bigint, bool, numeric, selected, table, text, type Column } from './table.js';

const ALWAYS = ['user', 'database', 'addr', 'port'];
/** PgDog has no such column: programs that count them must not find one more. */
const TLS = [bool<{ readonly tls: boolean }>('tls', ({ tls }) => tls)];

const CLIENT: readonly Column<ClientStatus>[] = [
  bigint('id', (client) => client.id),
  text('user', (client) => client.user),
  text('database', (client) => client.database),
  text('addr', (client) => client.host),
  bigint('port', (client) => client.port),
  text('state', (client) => client.state),
  text('replication', () => 'none'),
  text('connect_time', (client) => client.connectedAt),
  text('last_request', (client) => client.lastRequestAt),
  bigint('queries', (client) => client.queries),
  bigint('transactions', (client) => client.transactions),
  bigint('transactions_2pc', () => 0),
  numeric('wait_time', (client) => client.waitMs),
  numeric('query_time', (client) => client.queryMs),
  numeric('transaction_time', (client) => client.transactionMs),
  bigint('bytes_received', (client) => client.bytesReceived),
  bigint('bytes_sent', (client) => client.bytesSent),
  bigint('errors', (client) => client.errors),
  text('application_name', (client) => client.applicationName),
  bool('locked', () => false),
  bigint('prepared_statements', (client) => client.preparedStatements),
];

/** @throws CutoverError `admin_syntax` for a name that is not a column */
export function showClients(clients: readonly ClientStatus[], names: readonly string[]): AdminResult {
  return table(selected(CLIENT, names, ALWAYS, TLS), clients);
}

function serverColumns(now: Date): readonly Column<ServerStatus>[] {
  return [
    bigint('pool_id', (server) => server.poolId),
    text('database', (server) => server.database),
    text('user', (server) => server.user),
    text('addr', (server) => server.host),
    bigint('port', (server) => server.port),
    text('state', (server) => server.state),
    text('connect_time', (server) => server.connectedAt),
    text('request_time', (server) => server.lastRequestAt),
    bigint('remote_pid', (server) => server.remotePid),
    bigint('client_id', (server) => server.clientId),
    bigint('transactions', (server) => server.transactions),
    bigint('queries', (server) => server.queries),
    bigint('rollbacks', (server) => server.rollbacks),
    bigint('prepared_statements', (server) => server.preparedStatements),
    bigint('healthchecks', () => 0),
    bigint('errors', (server) => server.errors),
    bigint('bytes_received', (server) => server.bytesReceived),
    bigint('bytes_sent', (server) => server.bytesSent),
    // PgDog shows the last protocol message here; the relay does not look at single messages.
    text('last_sent', () => null),
    text('last_received', () => null),
    bigint('age', (server) => Math.floor((now.getTime() - server.connectedAt.getTime()) / 1_000)),
    text('application_name', () => ''),
  ];
}

/** @throws CutoverError `admin_syntax` for a name that is not a column */
export function showServers(servers: readonly ServerStatus[], names: readonly string[], now: Date): AdminResult {
  return table(selected(serverColumns(now), names, ALWAYS, TLS), servers);
}
