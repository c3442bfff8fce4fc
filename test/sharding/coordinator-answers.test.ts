/** One task: a coordinator over two shards answers what one whole database answers, in every format, or says that it cannot. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Major } from '../../src/dev/embedded-postgres.js';
import type { Connection } from '../../src/postgres/connection.js';
import { useClusters } from '../support/clusters.js';
import { APP_ROLE, OWNER_ROLE } from './coordinator-fixture.js';
import { connectApp, makeSharded } from './coordinator-setup.js';
import { ANSWERED_OTHERWISE, EQUAL, REFUSED } from './coordinator-queries.js';

/** COORDINATOR_MAJORS=14,15,16,17,18 for all; the newest in every run. */
const MAJORS = (process.env.COORDINATOR_MAJORS ?? '18').split(',').map((major) => Number(major) as Major);

describe.each(MAJORS)('PostgreSQL %i', (major) => {
  const clusters = useClusters({ one: { major, auth: 'scram' } });
  let whole: Connection;
  let coordinator: Connection;

  beforeAll(async () => {
    const sharded = await makeSharded(clusters.one);
    whole = await connectApp(clusters.one, sharded.whole);
    coordinator = await connectApp(clusters.one, sharded.coordinator);
  });

  afterAll(async () => {
    await Promise.all([whole.end(), coordinator.end()]);
  });

  test.each([
    ['text, as one message', false],
    ['binary, prepared', true],
  ] as const)('every query of the list gives the same answer: %s', async (_, binary) => {
    const different: string[] = [];
    const queries = EQUAL.filter((text) => !binary || !WITH_TYPE_OIDS.test(text));
    for (const [at, text] of queries.entries()) {
      const query = { text, ...(binary ? { binary, name: `q${at.toString()}` } : {}) };
      const [expected, actual] = await Promise.all([answer(whole, query), answer(coordinator, query)]);
      if (expected !== actual) different.push(`${text}\n whole: ${expected}\n coordinator: ${actual}`);
      expect(expected, text).not.toContain('error');
    }
    expect(different).toEqual([]);
  });

  test('parameters in binary prune and compare as literals do', async () => {
    const eight = Buffer.alloc(8);
    const four = Buffer.alloc(4);
    four.writeInt32BE(3);
    for (let tenant = -3n; tenant <= 36n; tenant++) {
      eight.writeBigInt64BE(tenant);
      const query = {
        name: 'binary_parameters',
        text: 'SELECT * FROM orders WHERE tenant_id = $1 AND account_id % 5 < $2::int ORDER BY id',
        values: [eight, four],
        binary: true,
      };
      expect(await answer(coordinator, query), tenant.toString()).toBe(await answer(whole, query));
    }
  });

  test('a cursor goes on where it stopped, in steps smaller and larger than a fetch', async () => {
    const steps = ['FETCH 1', 'FETCH 2500', 'FETCH 7', 'MOVE 100', 'FETCH ALL'];
    const text = `DECLARE c CURSOR FOR SELECT a.id, b.number FROM account a CROSS JOIN reading b ORDER BY a.tenant_id, a.id, b.number`;
    for (const connection of [whole, coordinator]) await connection.query(`BEGIN READ ONLY; ${text}`);
    for (const step of steps)
      expect(await answer(coordinator, { text: step }), step).toBe(await answer(whole, { text: step }));
    for (const connection of [whole, coordinator]) await connection.query('COMMIT');
  });

  test('who may read a table may read its parts, column by column, and nobody else may', async () => {
    const { rows } = await coordinator.query<{ name: string; parts: boolean; whole: boolean }>(`
      SELECT r || ' ' || p.oid::regclass || '.' || a.attname AS name, has_column_privilege(r, c.oid, b.attnum, 'SELECT') AS parts,
        has_column_privilege(r, p.oid, a.attnum, 'SELECT') AS whole
      FROM unnest(ARRAY['${APP_ROLE}', '${OWNER_ROLE}']) r, pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
        JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_attribute a ON a.attrelid = p.oid
        JOIN pg_attribute b ON b.attrelid = c.oid AND b.attname = a.attname
      WHERE c.relkind = 'f' AND a.attnum > 0`);
    expect(new Set(rows.map((row) => row.whole))).toEqual(new Set([true, false]));
    expect(rows.filter((row) => row.parts !== row.whole)).toEqual([]);
    const { rows: some } = await coordinator.query('SELECT count(*)::int AS n FROM cutover_shard_0."app.orders"');
    expect(some[0]).toMatchObject({ n: expect.any(Number) as number });
  });

  test.each(REFUSED)('refused with an error: $text', async ({ text, code }) => {
    await expect(coordinator.query(text)).rejects.toMatchObject({ code });
  });

  // Nobody may send these here: this list is what a router must keep away.
  test.each(ANSWERED_OTHERWISE)('answered otherwise than by a whole database: %s', async (text) => {
    const [expected, actual] = [await answer(whole, { text }), await answer(coordinator, { text })];
    expect(actual).not.toContain('error');
    expect(actual).not.toBe(expected);
  });
});

test('the list is as long as it is said to be', () => {
  expect(EQUAL.length).toBeGreaterThanOrEqual(120);
  expect(new Set(EQUAL).size).toBe(EQUAL.length);
});

interface Query {
  readonly text: string;
  readonly name?: string;
  readonly binary?: boolean;
  readonly values?: readonly Buffer[];
}

/**
 * In binary an array of composites, a record and a regtype hold oids of types, which a database numbers by itself: a shard has others
 * than its neighbour as well.
 */
const WITH_TYPE_OIDS = /^SELECT \* FROM edge_nested|pg_typeof/;
/** As the server sent it; what is no UTF-8 in a binary value has become U+FFFD in the driver, the same on both sides. */
const RAW = { getTypeParser: () => (value: unknown) => value };
/** Whose order is part of the answer: an ORDER BY that no parenthesis closes. */
const ORDERED = /ORDER BY [^)]*$|^(FETCH|MOVE)/;

/** Names, types and values as the server sent them; rows in an order of their own where the query gives none. */
async function answer(connection: Connection, query: Query): Promise<string> {
  try {
    const { values, ...rest } = query;
    const result = await connection.query<unknown[]>({
      ...rest,
      ...(values === undefined ? {} : { values: [...values] }),
      rowMode: 'array',
      types: RAW,
    });
    const rows = result.rows.map((row) => JSON.stringify(row));
    const fields = result.fields.map(({ name }) => name);
    return JSON.stringify([fields, ORDERED.test(query.text) ? rows : rows.sort()]);
  } catch (error) {
    return `error ${String(error)}`;
  }
}
