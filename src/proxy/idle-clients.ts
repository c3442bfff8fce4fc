/**
 * One task: end clients that have been idle for longer than the configuration allows, with the codes and words of PostgreSQL's own
 * idle_session_timeout and idle_in_transaction_session_timeout.
 */
import type { GeneralConfig } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';
import type { Idleness } from './session-servers.js';

interface IdleClient {
  readonly database: string;
  readonly servers: { readonly idleness: Idleness | null };
  terminate(error: CutoverError): void;
}

/** What one sweep goes by. */
export interface IdleRules {
  readonly general: Pick<GeneralConfig, 'clientIdleTimeoutMs' | 'clientIdleInTransactionTimeoutMs'>;
  /** clients of this database are held: who waits there is not idle, and nobody is ended meanwhile */
  readonly held: (database: string) => boolean;
}

/** To be called about once a second. */
export function endIdleClients(clients: Iterable<IdleClient>, { general, held }: IdleRules): void {
  const { clientIdleTimeoutMs: idleMs, clientIdleInTransactionTimeoutMs: inTransactionMs } = general;
  if (idleMs === null && inTransactionMs === null) return;
  for (const client of clients) {
    const idleness = client.servers.idleness;
    const limitMs = idleness?.inTransaction === true ? inTransactionMs : idleMs;
    if (idleness === null || limitMs === null || idleness.forMs <= limitMs || held(client.database)) continue;
    client.terminate(new CutoverError(idleness.inTransaction ? 'client_idle_in_transaction' : 'client_idle'));
  }
}
