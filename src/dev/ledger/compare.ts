/** One task: hold what a database contains against what its clients were told. */
import { withConnection, type Connection } from '../../postgres/connection.js';
import type { Endpoint } from '../../postgres/endpoint.js';
import type { Ledger } from './ledger.js';
import { INITIAL_BALANCE, readHistory, type LoadedHistory } from './prepare.js';

export interface Comparison {
  /** tokens acknowledged and not there */
  readonly lost: readonly string[];
  /** tokens there more than once */
  readonly doubled: readonly string[];
  /** tokens there though the client was told they were refused, or that no client of this ledger wrote */
  readonly unexpected: readonly string[];
  /** every account has its initial balance and what the entries moved, so no transaction was applied in part */
  readonly balanceOk: boolean;
  /** the rows loaded ahead are all there and unchanged; true when no history was given to compare */
  readonly historyOk: boolean;
  /** writes without an answer that took effect all the same */
  readonly unknownFound: number;
}

const READ_TIMEOUT_MS = 120_000;
const TABLES_MAX = 5_000;

/**
 * Reads the side that serves and compares. To be called after `ledger.stop()`: a write acknowledged meanwhile would
 * appear lost.
 */
export function compareLedger(
  endpoint: Endpoint,
  ledger: Pick<Ledger, 'acknowledged' | 'unknown'>,
  history?: LoadedHistory,
): Promise<Comparison> {
  return withConnection(
    endpoint,
    async (connection) => {
      const counts = await countTokens(connection);
      const acknowledged = new Set(ledger.acknowledged.map(({ token }) => token));
      const unknown = new Set(ledger.unknown.map(({ token }) => token));
      const found = [...counts.keys()];
      return {
        lost: [...acknowledged].filter((token) => !counts.has(token)),
        doubled: found.filter((token) => (counts.get(token) ?? 0) > 1),
        unexpected: found.filter((token) => !acknowledged.has(token) && !unknown.has(token)),
        balanceOk: await balanceOk(connection),
        historyOk: history === undefined || same(history, await readHistory(connection)),
        unknownFound: [...unknown].filter((token) => counts.has(token)).length,
      };
    },
    { queryTimeoutMs: READ_TIMEOUT_MS, applicationName: 'ledger' },
  );
}

/** How often each token is there, over all tables that have one. */
async function countTokens(connection: Connection): Promise<ReadonlyMap<string, number>> {
  const tables = await connection.query<{ name: string }>(
    `SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.columns
      WHERE table_schema = 'public' AND column_name = 'token' ORDER BY 1 LIMIT ${TABLES_MAX.toString()}`,
  );
  const counts = new Map<string, number>();
  for (const { name } of tables.rows) {
    const { rows } = await connection.query<{ token: string; times: number }>(
      `SELECT token::text AS token, count(*)::integer AS times FROM ${name} WHERE token IS NOT NULL GROUP BY token`,
    );
    for (const { token, times } of rows) counts.set(token, (counts.get(token) ?? 0) + times);
  }
  return counts;
}

async function balanceOk(connection: Connection): Promise<boolean> {
  const { rows } = await connection.query<{ wrong: number }>(
    `SELECT count(*)::integer AS wrong FROM public.accounts AS account
       LEFT JOIN (SELECT account_id, sum(amount) AS moved FROM (
           SELECT debited AS account_id, -amount AS amount FROM public.entries
           UNION ALL SELECT credited, amount FROM public.entries) AS booking GROUP BY account_id) AS total
         ON total.account_id = account.id
      WHERE account.balance <> $1 + coalesce(total.moved, 0)`,
    [INITIAL_BALANCE],
  );
  return rows[0]?.wrong === 0;
}

function same(one: LoadedHistory, other: LoadedHistory): boolean {
  return one.rows === other.rows && one.checksum === other.checksum;
}
