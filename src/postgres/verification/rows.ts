/**
 * One task: read the rows of a table as hashes: a digest of many, or one hash for each key.
 *
 * The hash is of the row's text, so that it takes every type (json has no hash of its own) and tells 1.0 from 1.00. COLLATE "C"
 * keeps it a hash of the bytes. The sum and the exclusive or of the hashes and the count do not depend on the order of rows.
 */
import { quoteIdentifier, type Connection } from '../connection.js';
import { qualified } from '../fence.js';
import type { ComparedTable } from './table.js';

/** The values of a key as text, in the order of its columns. */
export type Key = readonly string[];

/** Of many rows. */
export interface Digest {
  readonly rows: number;
  readonly bytes: number;
  /** equal for equal rows, and only then, but for a chance of one in 2^64 */
  readonly print: string;
}

/** Of the rows with one key: one, as long as the key is unique there. */
export interface Look {
  readonly hash: string;
  /** another one after every change of the row, also to the same value (xmin and ctid; PostgreSQL documentation, 5.6) */
  readonly version: string;
}

/** After `after`, up to and with `through`; null: from the beginning, to the end. */
export interface Range {
  readonly after: Key | null;
  readonly through: Key | null;
}

/** The rows of a table that are compared, on one server. */
export interface Rows {
  readonly connection: Connection;
  /** which of them: a condition on unqualified columns of the table; null: all */
  readonly where: string | null;
}

const ROW_VERSION = `t.xmin::text || '/' || t.ctid::text`;

const column = (name: string): string => `t.${quoteIdentifier(name)}`;

function textOf(table: ComparedTable): string {
  return `ROW(${table.columns.map(column).join(', ')})::text COLLATE "C"`;
}

function tupleOf(table: ComparedTable): string {
  return `(${table.key.map(({ name }) => column(name)).join(', ')})`;
}

/** Every row of the table, whichever of them are compared. */
const allOf = ({ connection }: Rows): Rows => ({ connection, where: null });

/** A condition on the key and on the rows, with its parameters appended to `values`. */
function within({ where }: Rows, table: ComparedTable, { after, through }: Range, values: unknown[]): string {
  const bound = (operator: string, key: Key): string => {
    const casts = table.key.map(({ type }, i) => {
      values.push(key[i]);
      return `$${values.length.toString()}::${type}`;
    });
    return `${tupleOf(table)} ${operator} (${casts.join(', ')})`;
  };
  const conditions = [
    ...(after === null ? [] : [bound('>', after)]),
    ...(through === null ? [] : [bound('<=', through)]),
    ...(where === null ? [] : [`(${where})`]),
  ];
  return conditions.length === 0 ? '' : `WHERE ${conditions.join(' AND ')}`;
}

const orderOf = (table: ComparedTable): string => table.key.map(({ name }) => column(name)).join(', ');

/**
 * The key that ends a chunk of `size` rows; null when no more rows than that are left. All rows count, those that are not compared too:
 * a chunk is as long as what has to be read for it.
 */
export async function endOfChunk(
  side: Rows,
  table: ComparedTable,
  after: Key | null,
  size: number,
): Promise<Key | null> {
  const values: unknown[] = [size - 1];
  const condition = within(allOf(side), table, { after, through: null }, values);
  const { rows } = await side.connection.query<{ key: Key }>(
    `SELECT ${keyText(table)} AS key FROM ONLY ${qualified(table)} AS t ${condition}
     ORDER BY ${orderOf(table)} OFFSET $1 LIMIT 1`,
    values,
  );
  return rows[0]?.key ?? null;
}

function keyText(table: ComparedTable): string {
  return `ARRAY[${table.key.map(({ name }) => `${column(name)}::text`).join(', ')}]`;
}

/** OFFSET 0 keeps the inner query apart: the text of a row is made once. */
function hashed(table: ComparedTable, condition: string): string {
  return `SELECT hashtextextended(r, 0) AS h, octet_length(r) AS bytes
    FROM (SELECT ${textOf(table)} AS r FROM ONLY ${qualified(table)} AS t ${condition} OFFSET 0) AS row OFFSET 0`;
}

const DIGEST = `count(*)::float8 AS rows, coalesce(sum(bytes), 0)::float8 AS bytes,
  count(*) || ' ' || coalesce(sum(h), 0) || ' ' || coalesce(bit_xor(h), 0) AS print`;

export async function digestOf(side: Rows, table: ComparedTable, range: Range): Promise<Digest> {
  const values: unknown[] = [];
  const { rows } = await side.connection.query<Digest>(
    `SELECT ${DIGEST} FROM (${hashed(table, within(side, table, range, values))}) AS rows`,
    values,
  );
  return rows[0] ?? { rows: 0, bytes: 0, print: '' };
}

/** A key as it names a row in a map and in a report. */
export const nameOfKey = (key: Key): string => JSON.stringify(key);

interface Listed {
  readonly key: Key;
  readonly hash: string;
  readonly version: string;
}

/** Rows with the same key, where nothing keeps them unique, are told together: their hashes differ from those of one row. */
function byKey(listed: readonly Listed[]): Map<string, Look> {
  const looks = new Map<string, Look>();
  for (const { key, hash, version } of listed) {
    const name = nameOfKey(key);
    const earlier = looks.get(name);
    looks.set(
      name,
      earlier ? { hash: `${earlier.hash}+${hash}`, version: `${earlier.version}+${version}` } : { hash, version },
    );
  }
  return looks;
}

const LISTED = (table: ComparedTable): string =>
  `${keyText(table)} AS key, hashtextextended(${textOf(table)}, 0)::text AS hash, ${ROW_VERSION} AS version`;

/** Every row of a range by its key. */
export async function rowsIn(side: Rows, table: ComparedTable, range: Range): Promise<Map<string, Look>> {
  const values: unknown[] = [];
  const condition = within(side, table, range, values);
  const { rows } = await side.connection.query<Listed>(
    `SELECT ${LISTED(table)} FROM ONLY ${qualified(table)} AS t ${condition} ORDER BY hash`,
    values,
  );
  return byKey(rows);
}

/**
 * Of the next `size` rows after a key, in this server's order, those that are compared, and the key to go on after; null when it was
 * the last page.
 */
export async function pageOf(
  side: Rows,
  table: ComparedTable,
  after: Key | null,
  size: number,
): Promise<{
  readonly looks: Map<string, Look>;
  readonly keys: readonly Key[];
  readonly next: Key | null;
  bytes: number;
}> {
  const next = await endOfChunk(side, table, after, size);
  const values: unknown[] = [];
  const condition = within(side, table, { after, through: next }, values);
  const { rows } = await side.connection.query<Listed & { bytes: number }>(
    `SELECT ${LISTED(table)}, octet_length(${textOf(table)}) AS bytes FROM ONLY ${qualified(table)} AS t ${condition}
     ORDER BY ${orderOf(table)}`,
    values,
  );
  const bytes = rows.reduce((sum, row) => sum + row.bytes, 0);
  return { looks: byKey(rows), keys: rows.map(({ key }) => key), next, bytes };
}

/**
 * The rows with these keys.
 *
 * @param hold keeps them as they are until the transaction of this connection ends
 */
export async function rowsAt(
  side: Rows,
  table: ComparedTable,
  keys: readonly Key[],
  hold = false,
): Promise<Map<string, Look>> {
  if (table.mode === 'whole') return hashesAt(side, table, keys);
  const arrays = table.key.map((_, i) => `$${(i + 1).toString()}::text[]`).join(', ');
  const names = freeNames(table);
  const matches = table.key.map(({ name, type }, i) => `${column(name)} = k.${names[i] ?? ''}::${type}`).join(' AND ');
  const condition = side.where === null ? '' : `WHERE (${side.where})`;
  const { rows } = await side.connection.query<Listed>(
    `SELECT ${LISTED(table)} FROM unnest(${arrays}) AS k (${names.join(', ')})
     JOIN ONLY ${qualified(table)} AS t ON ${matches} ${condition} ${hold ? 'FOR SHARE OF t' : 'ORDER BY hash'}`,
    table.key.map((_, i) => keys.map((key) => key[i])),
  );
  return byKey(rows);
}

/** One for each column of the key, and none of them a column of the table: the condition on its rows names columns alone. */
function freeNames(table: ComparedTable): readonly string[] {
  let prefix = 'k';
  while (table.columns.some((name) => name.startsWith(prefix))) prefix += '_';
  return table.key.map((_, i) => `${prefix}${i.toString()}`);
}

// ── tables without a key: a bag of rows, told apart by their hashes ───────────────────────────────────────────────────

const WHOLE: Range = { after: null, through: null };

/** A power of two: a bucket is some bits of the hash. */
export const BUCKETS = 1024;

/** One digest for each bucket that has rows. The whole table in one statement: there is no key to divide it by. */
export async function bucketsOf(side: Rows, table: ComparedTable): Promise<Map<number, Digest>> {
  const { rows } = await side.connection.query<Digest & { bucket: number }>(
    `SELECT (h & ${(BUCKETS - 1).toString()})::int AS bucket, ${DIGEST} FROM (${hashed(table, within(side, table, WHOLE, []))}) AS rows
     GROUP BY 1`,
  );
  return new Map(rows.map((row) => [row.bucket, row]));
}

/** The rows of some buckets: the key is the hash, the hash how many rows have it. */
export function rowsInBuckets(
  side: Rows,
  table: ComparedTable,
  buckets: readonly number[],
): Promise<Map<string, Look>> {
  return bagOf(side, table, `(h & ${(BUCKETS - 1).toString()})::int = ANY($1::int[])`, buckets);
}

function hashesAt(side: Rows, table: ComparedTable, keys: readonly Key[]): Promise<Map<string, Look>> {
  return bagOf(
    side,
    table,
    'h = ANY($1::bigint[])',
    keys.map(([hash]) => hash),
  );
}

async function bagOf(
  side: Rows,
  table: ComparedTable,
  condition: string,
  value: readonly unknown[],
): Promise<Map<string, Look>> {
  const { rows } = await side.connection.query<Listed>(
    `SELECT ARRAY[h::text] AS key, count(*)::text AS hash, sum(hashtextextended(version, 0))::text AS version
     FROM (SELECT hashtextextended(${textOf(table)}, 0) AS h, ${ROW_VERSION} AS version
       FROM ONLY ${qualified(table)} AS t ${within(side, table, WHOLE, [])} OFFSET 0) AS row
     WHERE ${condition} GROUP BY h`,
    [value],
  );
  return byKey(rows);
}
