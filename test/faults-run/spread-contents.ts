/** One task: hold what all shards of a side contain of the ledger, together, against what its clients were told. */
import type { Place } from '../../src/dev/embedded-postgres.js';
import type { Ledger } from '../../src/dev/ledger/ledger.js';
import { INITIAL_BALANCE, readHistory, type LoadedHistory } from '../../src/dev/ledger/prepare.js';
import { withConnection } from '../../src/postgres/connection.js';
import { NOTICES, POSTINGS } from './spread.js';

/** What the rows with one token are in one table, over all shards. */
interface Found {
  readonly table: string;
  rows: number;
  /** of a transfer nothing may be left over */
  amount: bigint;
}

const SHOWN_MAX = 3;

/** Every acknowledged write exactly once, all of it or nothing, the balances right on every shard. Nobody may write meanwhile. */
export async function spreadContents(
  shards: readonly Place[],
  load: Pick<Ledger, 'acknowledged' | 'unknown'>,
  history: LoadedHistory,
): Promise<readonly string[]> {
  const found = new Map<string, Found>();
  const balances = new Map<number, bigint>();
  for (const place of shards) {
    for (const { token, table, rows, amount } of await tokensOf(place)) {
      const known = found.get(token) ?? { table, rows: 0, amount: 0n };
      found.set(token, { table: known.table, rows: known.rows + rows, amount: known.amount + BigInt(amount) });
    }
    for (const { account, amount } of await balancesOf(place))
      balances.set(account, (balances.get(account) ?? 0n) + BigInt(amount));
  }
  const wrongBalances = [...balances.values()].filter((left) => left !== 0n).length;
  const told = (what: string, tokens: readonly string[]): string[] =>
    tokens.length === 0 ? [] : [`${tokens.length.toString()} ${what}: ${tokens.slice(0, SHOWN_MAX).join(', ')}`];
  const wanted = ({ table }: Found): number => (table === POSTINGS ? 2 : table === NOTICES ? shards.length : 1);
  const those = (test: (one: Found) => boolean): string[] =>
    [...found].filter(([, one]) => test(one)).map(([token]) => token);
  const expected = new Set([...load.acknowledged, ...load.unknown].map(({ token }) => token));
  return [
    ...told(
      'lost',
      load.acknowledged.filter(({ token }) => !found.has(token)).map(({ token }) => token),
    ),
    ...told(
      'in part',
      those((one) => one.rows < wanted(one) || one.amount !== 0n),
    ),
    ...told(
      'doubled',
      those((one) => one.rows > wanted(one)),
    ),
    ...told(
      'unexpected',
      [...found.keys()].filter((token) => !expected.has(token)),
    ),
    ...(wrongBalances > 0 ? [`${wrongBalances.toString()} balances are wrong`] : []),
    ...((await sameHistory(shards, history)) ? [] : ['rows loaded before the move have changed']),
  ];
}

interface TokenRow extends Record<string, unknown> {
  readonly token: string;
  readonly table: string;
  readonly rows: number;
  readonly amount: string;
}

async function tokensOf({ cluster, database }: Place): Promise<readonly TokenRow[]> {
  const tables = await cluster.query<{ name: string }>(
    database,
    `SELECT table_name::text AS name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'token'`,
  );
  const selects = tables.map(
    ({ name }) =>
      `SELECT token::text, '${name}' AS table, count(*)::int AS rows, ${name === POSTINGS ? 'sum(amount)' : '0'}::text AS amount
       FROM public.${name} WHERE token IS NOT NULL GROUP BY token`,
  );
  return cluster.query<TokenRow>(database, selects.join(' UNION ALL '));
}

interface BalanceRow extends Record<string, unknown> {
  readonly account: number;
  readonly amount: string;
}

/** What each account has beyond what was moved to it; an entry is on the shard of one of its two accounts. */
async function balancesOf({ cluster, database }: Place): Promise<readonly BalanceRow[]> {
  return cluster.query<BalanceRow>(
    database,
    `SELECT account, sum(amount)::text AS amount FROM (
       SELECT id AS account, balance - ${INITIAL_BALANCE.toString()} AS amount FROM public.accounts
       UNION ALL SELECT debited, amount FROM public.entries WHERE debited <> 0
       UNION ALL SELECT credited, -amount FROM public.entries WHERE credited <> 0
       UNION ALL SELECT account, -amount FROM public.${POSTINGS}) AS booking GROUP BY account`,
  );
}

async function sameHistory(shards: readonly Place[], loaded: LoadedHistory): Promise<boolean> {
  let [rows, checksum] = [0, 0n];
  for (const { cluster, database } of shards) {
    const part = await withConnection(cluster.endpoint(database), readHistory);
    rows += part.rows;
    checksum += BigInt(part.checksum);
  }
  return rows === loaded.rows && checksum === BigInt(loaded.checksum);
}
