/**
 * One task: the ledger as it is written where it lies on several shards: accounts on all of them by the hash of their number, transfers within
 * a shard by a transaction, transfers between two shards by one statement or by a transaction, notices that every shard has. Before a move the same runs on one server.
 */
import { randomInt, randomUUID } from 'node:crypto';
import type { LedgerOptions } from '../../src/dev/ledger/ledger.js';
import { ACCOUNTS } from '../../src/dev/ledger/prepare.js';
import type { Statement, Style } from '../../src/dev/ledger/session.js';
import type { Write } from '../../src/dev/ledger/writes.js';
import { invariant } from '../../src/errors/invariant.js';
import { shardOf } from '../../src/sharding/hash.js';
import type { KeyType } from '../../src/sharding/scheme.js';
import { EXTRA_TABLES } from './direct-writers.js';

/** Of a transfer between shards: a row for each of its two accounts, which its trigger books on the shard of the account. */
export const POSTINGS = 'postings';
/** The same on every shard. */
export const NOTICES = 'notices';

const extraTables = Array.from({ length: EXTRA_TABLES }, (_, index) => `extra_${(index + 1).toString()}`);

/** Beside the ledger's tables, of which some must have their sharding key in what a change is told by. */
export const SPREAD_SCHEMA = `
  CREATE TABLE public.${POSTINGS} (account integer NOT NULL, token uuid NOT NULL, amount bigint NOT NULL);
  CREATE FUNCTION public.book() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE public.accounts SET balance = balance + NEW.amount WHERE id = NEW.account;
    RETURN NULL; END $$;
  CREATE TRIGGER book AFTER INSERT ON public.${POSTINGS} FOR EACH ROW EXECUTE FUNCTION public.book();
  CREATE TABLE public.${NOTICES} (token uuid NOT NULL);
  ${[POSTINGS, NOTICES, 'entries', 'direct_writes', ...extraTables]
    .map((table) => `ALTER TABLE public.${table} REPLICA IDENTITY FULL;`)
    .join('\n')}`;

/** What each table is spread by. */
export const KEYS: readonly (readonly [table: string, column: string, type: KeyType])[] = [
  ['accounts', 'id', 'bigint'],
  ['entries', 'debited', 'bigint'],
  [POSTINGS, 'account', 'bigint'],
  ['history', 'id', 'bigint'],
  ['documents', 'token', 'uuid'],
  ['direct_writes', 'mark', 'uuid'],
  ...extraTables.map((table) => [table, 'token', 'uuid'] as const),
];

/** Of pgdog.toml. */
export function spreadRules(database: string): string {
  return KEYS.map(
    ([table, column, type]) => `
[[sharded_tables]]
database = "${database}"
name = "${table}"
column = "${column}"
data_type = "${type}"
`,
  ).join('');
}

/** The shard of a key by PostgreSQL's own hash. */
export function placeOf(type: KeyType, key: string | number, shards: number): number {
  const rule = { type, mapping: { kind: 'hash', hasher: 'postgres' } } as const;
  const shard = shardOf(rule, typeof key === 'number' ? BigInt(key) : key, shards);
  invariant(shard !== null, 'a hash has a shard for every key');
  return shard;
}

const STYLES: readonly Style[] = ['simple', 'extended', 'prepared'];
const BEGIN: Statement = { text: 'BEGIN', values: [], command: 'BEGIN' };
const COMMIT: Statement = { text: 'COMMIT', values: [], command: 'COMMIT' };

/**
 * The writes of turn after turn: every kind in every style comes around.
 *
 * @param sizes the numbers of shards that the ledger lies on one after the other, at last the largest part of the time
 */
export function spreadWrites(...sizes: readonly number[]): NonNullable<LedgerOptions['writeOfTurn']> {
  return (turn, writer) => {
    const token = randomUUID();
    const style = STYLES[turn % STYLES.length] ?? 'simple';
    const write = (table: string, ...statements: readonly Statement[]): Write => ({ token, table, style, statements });
    const kinds = [
      () => write('entries', ...transferWithin(token, writer, sizes)),
      () => write(POSTINGS, transferBetween(token, sizes)),
      () => write('entries', entry(token, writer, 0, 0, 0)),
      () => write(POSTINGS, ...transferInSteps(token, sizes)),
      () =>
        write(
          'documents',
          insert('INSERT INTO documents (token, body) VALUES ($1, $2)', [token, `${token} `.repeat(5)]),
        ),
      () => write(NOTICES, insert(`INSERT INTO ${NOTICES} (token) VALUES ($1)`, [token])),
      () => {
        const table = extraTables[randomInt(extraTables.length)] ?? '';
        return write(table, insert(`INSERT INTO ${table} (token) VALUES ($1)`, [token]));
      },
    ];
    const kind = kinds[Math.floor(turn / STYLES.length) % kinds.length];
    invariant(kind, 'there are kinds');
    return kind();
  };
}

/**
 * Two accounts in the order of their shards and numbers, so that two transfers never wait for each other in a circle: a statement for
 * several shards is run in this order too, and no server sees a circle over two of them.
 */
function twoAccounts(sizes: readonly number[], onOneShard: boolean): readonly [number, number] {
  for (;;) {
    const [one, other] = [1 + randomInt(ACCOUNTS), 1 + randomInt(ACCOUNTS)];
    const steps = sizes.map((shards) => placeOf('bigint', other, shards) - placeOf('bigint', one, shards));
    const inOrder = steps.every((step) => step > 0 || (step === 0 && one < other));
    if (inOrder && (steps.at(-1) === 0) === onOneShard) return [one, other];
  }
}

function transferWithin(token: string, writer: string, sizes: readonly number[]): readonly Statement[] {
  const [lower, higher] = twoAccounts(sizes, true);
  const amount = 1 + randomInt(100);
  return [BEGIN, book(lower, -amount), book(higher, amount), entry(token, writer, lower, higher, amount), COMMIT];
}

function transferBetween(token: string, sizes: readonly number[]): Statement {
  const [from, to] = twoAccounts(sizes, false);
  const amount = 1 + randomInt(100);
  const text = `INSERT INTO ${POSTINGS} (account, token, amount) VALUES ($1, $2, $3), ($4, $2, $5)`;
  return { text, values: [from, token, -amount, to, amount], command: 'INSERT', rowCount: 2 };
}

/** The same by two statements, each for one shard. */
function transferInSteps(token: string, sizes: readonly number[]): readonly Statement[] {
  const [from, to] = twoAccounts(sizes, false);
  const amount = 1 + randomInt(100);
  const post = (account: number, moved: number): Statement =>
    insert(`INSERT INTO ${POSTINGS} (account, token, amount) VALUES ($1, $2, $3)`, [account, token, moved]);
  return [BEGIN, post(from, -amount), post(to, amount), COMMIT];
}

function book(account: number, amount: number): Statement {
  const text = 'UPDATE accounts SET balance = balance + $1 WHERE id = $2';
  return { text, values: [amount, account], command: 'UPDATE', rowCount: 1 };
}

function entry(token: string, writer: string, debited: number, credited: number, amount: number): Statement {
  const text = 'INSERT INTO entries (token, writer, debited, credited, amount) VALUES ($1, $2, $3, $4, $5)';
  return insert(text, [token, writer, debited, credited, amount]);
}

function insert(text: string, values: Statement['values']): Statement {
  return { text, values, command: 'INSERT', rowCount: 1 };
}
