/** One task: the tables that hold the lists, which key stands where, and how all of them are read. */
import { withConnection } from '../../src/postgres/connection.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import type { FinalState } from './history.js';

const TABLES = 3;

/** Lists that exist; a load that has used all of them begins again with the first. */
export const KEYS = 9_000;

const READ_TIMEOUT_MS = 60_000;

/** The tables, by their qualified LIST_TABLES. */
const LIST_TABLES: readonly string[] = Array.from({ length: TABLES }, (_, index) => `public.lists_${index.toString()}`);

/**
 * Every list, empty, spread over several tables so that one transaction writes to more than one. With room on each page: an
 * update that stays on its page touches no index, and so no neighbour under SERIALIZABLE.
 */
export const LISTS_SCHEMA = LIST_TABLES.map(
  (name, index) => `
  CREATE TABLE ${name} (key integer PRIMARY KEY, items integer[] NOT NULL) WITH (fillfactor = 40);
  INSERT INTO ${name} SELECT key, '{}' FROM generate_series(0, ${(KEYS - 1).toString()}) AS key
    WHERE key / ${TABLES.toString()} % ${TABLES.toString()} = ${index.toString()};
  ANALYZE ${name};`,
).join('');

/** Where a list stands. Neighbouring keys of one guarantee are in different tables. */
export function tableOf(key: number): string {
  return LIST_TABLES[Math.floor(key / TABLES) % TABLES] ?? '';
}

/** Reads every list at one moment. Of all clients that have ended by then nothing is missing. */
export function readLists(endpoint: Endpoint): Promise<FinalState> {
  const all = LIST_TABLES.map((name) => `SELECT key, items FROM ${name} WHERE items <> '{}'`).join(' UNION ALL ');
  return withConnection(
    endpoint,
    async (connection) => {
      const { rows } = await connection.query<{ key: number; items: number[] }>(`${all} ORDER BY key`);
      return new Map(rows.map(({ key, items }) => [key, items]));
    },
    { queryTimeoutMs: READ_TIMEOUT_MS, applicationName: 'lists' },
  );
}

/** Empties the lists for another load, whose elements begin at 1 again. No client of the last one may be at work still. */
export function emptyLists(endpoint: Endpoint): Promise<void> {
  return withConnection(endpoint, async (connection) => {
    for (const name of LIST_TABLES) await connection.query(`UPDATE ${name} SET items = '{}' WHERE items <> '{}'`);
  });
}
