/**
 * One task: a statement that the router sends to one shard has there the answer of the whole database, and the same statement in
 * another form goes to no other shard.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { readCatalogue } from '../../src/sharding/catalogue.js';
import { shardOf } from '../../src/sharding/hash.js';
import type { Route } from '../../src/sharding/router-binding.js';
import { NO_PARAMETERS } from '../../src/sharding/router-parameters.js';
import { Router } from '../../src/sharding/router.js';
import { loadStatementParser } from '../../src/sharding/statement-parser.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { generatedSelect, TENANTS, withConstants, withParameters } from './generated-statements.js';
import { CATALOGUE, SCHEMA_SQL, SCHEME, SEARCH_PATH, SHARDS } from './routing-context.js';

const HASH = { type: 'bigint', mapping: { kind: 'hash', hasher: 'postgres' } } as const;
const SEED_FIRST = 1;
const PROVEN_MIN = 500;
/** Far more than are needed: about one in four is proven. */
const STATEMENTS_MAX = 6_000;

function routeOf(router: Router, sql: string, values: readonly string[] = []): Route | undefined {
  const parameters = { ...NO_PARAMETERS, values: values.map((value) => Buffer.from(value)) };
  return router.route(sql, { searchPath: SEARCH_PATH, parameters })[0]?.route;
}

describe('on generated statements', () => {
  let router: Router;

  beforeAll(async () => {
    router = new Router(await loadStatementParser(), { scheme: SCHEME, catalogue: CATALOGUE }, 0);
  });

  it('a key as a parameter goes where the constant goes', () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const statement = generatedSelect(seed);
        const { sql, values } = withParameters(statement);
        const [constant, parameter] = [routeOf(router, withConstants(statement)), routeOf(router, sql, values)];
        expect(parameter).toEqual(constant);
      }),
      { numRuns: 100 },
    );
  });

  it('a query inside another goes to the same shard or is not proven, never to another', () => {
    fc.assert(
      fc.property(
        fc.nat(),
        fc.constantFrom('SELECT * FROM (S) q', 'WITH q AS (S) SELECT * FROM q', 'S UNION ALL (S)'),
        (seed, form) => {
          const statement = withConstants(generatedSelect(seed));
          fc.pre(!statement.startsWith('WITH'));
          const inside = routeOf(router, statement);
          const outside = routeOf(router, form.replaceAll('S)', `${statement})`).replace(/^S /, `(${statement}) `));
          if (inside?.kind === 'shard') expect(outside).toEqual(inside);
          else expect(outside?.kind).not.toBe('shard');
        },
      ),
      { numRuns: 100 },
    );
  });

  it('no text makes it throw', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(), fc.string(), (seed, place, noise) => {
        const statement = withConstants(generatedSelect(seed));
        const at = place % statement.length;
        router.route(`${statement.slice(0, at)}${noise}${statement.slice(at)}`, { searchPath: SEARCH_PATH });
      }),
      { numRuns: 100 },
    );
  });
});

describe('on two shards and the whole database', () => {
  const clusters = useClusters({ all: { major: 18 } });
  let whole: Connection;
  let shards: Connection[];

  beforeAll(async () => {
    const open = async (): Promise<Connection> => {
      const connection = await connect(clusters.all.endpoint(await freshDatabase(clusters.all)));
      await connection.query(`SET search_path = public; SET jit = off; ${SCHEMA_SQL}`);
      return connection;
    };
    whole = await open();
    shards = await Promise.all(Array.from({ length: SHARDS }, open));
    for (const [text, tenant] of rows()) {
      const own = tenant === 'all' ? shards : [shards[shardOf(HASH, tenant, SHARDS) ?? -1]];
      for (const connection of [whole, ...own]) await connection?.query(text);
    }
  });

  afterAll(async () => {
    await Promise.all([whole, ...shards].map((connection) => connection.end()));
  });

  it('what is proven to need one shard has the same answer there', async () => {
    const router = new Router(await loadStatementParser(), { scheme: SCHEME, catalogue: await readCatalogue(whole) });
    let proven = 0;
    for (let seed = SEED_FIRST; proven < PROVEN_MIN && seed < STATEMENTS_MAX; seed += 1) {
      const sql = withConstants(generatedSelect(seed));
      const route = routeOf(router, sql);
      if (route?.kind !== 'shard') continue;
      const shard = shards[route.shard];
      if (shard === undefined) throw new Error('a shard that is not there');
      const [expected, answer] = await Promise.all([answerOf(whole, sql), answerOf(shard, sql)]);
      expect(answer, `seed ${seed.toString()}: ${sql}`).toEqual(expected);
      proven += 1;
    }
    expect(proven).toBe(PROVEN_MIN);
  });

  it('the catalogue read from a server is the one the tests assume', async () => {
    await whole.query(`CREATE TYPE mood AS ENUM ('sad', 'glad');
      CREATE TABLE defaults (a mood DEFAULT 'sad', b varchar(9) DEFAULT 'x', c int[] DEFAULT '{}', d int DEFAULT -1,
        e date DEFAULT CURRENT_DATE, f bigint GENERATED ALWAYS AS IDENTITY, g uuid DEFAULT gen_random_uuid(), h text)`);
    const { tables, otherRelations, functions } = await readCatalogue(whole);
    const expected = [...CATALOGUE.tables.values()].filter(({ schema }) => schema === 'public');
    for (const table of expected) expect(tables.get(`public\0${table.name}`)).toEqual(table);
    const defaults = tables.get('public\0defaults')?.columns.map((column) => column.default);
    expect(defaults).toEqual([
      'constant',
      'constant',
      'constant',
      'constant',
      'computed',
      'computed',
      'computed',
      'none',
    ]);
    expect(otherRelations).toContain('public\0order_view');
    expect(functions.get('public\0reads_tables')).toMatchObject({ volatility: 'stable', native: false });
    expect(functions.get('public\0pure')?.volatility).toBe('immutable');
    expect(functions.get('pg_catalog\0now')).toMatchObject({ volatility: 'stable', native: true });
    expect(functions.get('pg_catalog\0count')?.aggregate).toBe(true);
  });
});

/** Inserts, each with the tenant whose shard has it; items without a tenant are on the shard of NULL. */
function rows(): readonly (readonly [sql: string, tenant: bigint | null | 'all'])[] {
  const tenants = TENANTS.flatMap((tenant) => {
    const id = tenant.toString();
    return [
      `INSERT INTO tenants VALUES (${id}, 'tenant ${id}')`,
      `INSERT INTO orders (tenant_id, id) SELECT ${id}, g FROM generate_series(1, 2 + ${id} % 3) g`,
      `INSERT INTO items (tenant_id, order_id) SELECT ${id}, g FROM generate_series(2, 3 + ${id} % 2) g`,
    ].map((sql) => [sql, BigInt(tenant)] as const);
  });
  return [
    ...tenants,
    ['INSERT INTO items (tenant_id, order_id) VALUES (NULL, 1), (NULL, NULL)', null],
    ["INSERT INTO products SELECT g, 'p' FROM generate_series(1, 5) g", 'all'],
  ];
}

/** The rows without their order. */
async function answerOf(connection: Connection, sql: string): Promise<readonly string[]> {
  const result = await connection.query<Record<string, unknown>>(sql);
  return result.rows.map((row) => JSON.stringify(row)).sort();
}
