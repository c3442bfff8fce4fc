/** One task: SHOW MAINTENANCE: which databases hold their clients, why, and who still runs. */
import type { AdminResult, Proxy } from '../proxy/contract.js';
import type { Holder } from '../proxy/gate.js';
import { namesOf, type Hold } from './holds.js';
import { bigint, table, text, type Column } from './table.js';

/** One row for each database, held or not: an empty answer would leave the question open. */
export function showMaintenance(proxy: Proxy, maintenance: Hold, pause: Hold): AdminResult {
  const columns: readonly Column<string>[] = [
    text('database', (name) => name),
    text('reasons', (name) => proxy.gate(name).reasons.join(', ')),
    text('maintenance', (name) => maintenance.scopeOf(name)),
    text('pause', (name) => pause.scopeOf(name)),
    bigint('clients_waiting', (name) => proxy.gate(name).waitingCount),
    text('holders', (name) => proxy.gate(name).holders.map(sentenceOf).join('; ')),
  ];
  return table(columns, [...namesOf(proxy.config)]);
}

function sentenceOf({ clientId, user, application, serverPid, transactionMs }: Holder): string {
  const who = application === '' ? user : `${user} (${application})`;
  return `client ${clientId.toString()} ${who} on server process ${serverPid.toString()} for ${transactionMs.toFixed(0)} ms`;
}
