/** One task: the features of Drizzle over a pool of node-postgres. It has no COPY, LISTEN or cancel of its own. */
import { readFileSync } from 'node:fs';
import { asc, count, eq, max, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import * as column from 'drizzle-orm/pg-core';
import pg from 'pg';
import { ITEMS, LOOP, NONE, OTHER_CA, TRUSTED_CA, TYPES, failureOf, run, same } from './report.mjs';

const items = column.pgTable(ITEMS, { id: column.integer().primaryKey(), note: column.text().notNull() });
const loop = column.pgTable(LOOP, { n: column.integer().primaryKey() });
const types = column.pgTable(TYPES, {
  id: column.integer().primaryKey(),
  small: column.smallint(),
  big: column.bigint({ mode: 'bigint' }),
  exact: column.numeric(),
  double: column.doublePrecision(),
  truth: column.boolean(),
  words: column.text(),
  code: column.uuid(),
  day: column.date(),
  moment: column.timestamp({ withTimezone: true }),
  document: column.jsonb(),
  numbers: column.bigint({ mode: 'number' }).array(),
  texts: column.text().array(),
});

function open(endpoint, size) {
  const pool = new pg.Pool({ ...endpoint, max: size });
  pool.on('error', () => undefined);
  return { pool, db: drizzle(pool) };
}

async function connected(endpoint, work, size = 2) {
  const { pool, db } = open(endpoint, size);
  try {
    return await work(db);
  } finally {
    await pool.end();
  }
}

const features = {
  connect: async (endpoint) => {
    const { rows } = await connected(endpoint, (db) => db.execute(sql`SELECT current_user AS name`));
    same(rows, [{ name: endpoint.user }]);
    const wrong = { ...endpoint, password: 'wrong' };
    same((await failureOf(() => connected(wrong, (db) => db.execute(sql`SELECT 1`)))).code, '28P01');
  },

  tls: async (endpoint) => {
    const verified = (authority) => ({ ...endpoint, ssl: { ca: readFileSync(authority) } });
    const ask = (to) => connected(to, (db) => db.execute(sql`SELECT 1 AS one`));
    const { rows } = await ask(verified(TRUSTED_CA));
    same(rows, [{ one: 1 }]);
    same((await failureOf(() => ask(verified(OTHER_CA)))).code, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE');
  },

  prepared: (endpoint) =>
    connected(endpoint, async (db) => {
      await db.delete(items);
      await db.insert(items).values(Array.from({ length: 20 }, (_, n) => ({ id: n, note: `note ${n}` })));
      const byId = db
        .select()
        .from(items)
        .where(eq(items.id, sql.placeholder('id')))
        .prepare('by_id');
      for (let id = 0; id < 20; id++) same(await byId.execute({ id }), [{ id, note: `note ${id}` }]);
    }),

  transactions: (endpoint) =>
    connected(endpoint, async (db) => {
      const insert = (on, id) => on.insert(items).values({ id, note: 'note' });
      const ids = async () => (await db.select().from(items).orderBy(asc(items.id))).map(({ id }) => id);
      await db.delete(items);
      await failureOf(() =>
        db.transaction(async (on) => {
          await insert(on, 1);
          on.rollback();
        }),
      );
      same(await ids(), []);
      await db.transaction(async (on) => {
        await insert(on, 1);
        same((await failureOf(() => on.transaction((inner) => insert(inner, 1)))).code, '23505');
        await insert(on, 2);
      });
      same(await ids(), [1, 2]);
    }),

  copy: NONE,
  notify: NONE,
  cancel: NONE,

  types: (endpoint) =>
    connected(endpoint, async (db) => {
      const row = {
        small: -32768,
        exact: '1234.5600',
        double: 0.1,
        truth: true,
        words: "it's é\n",
        code: '01234567-89ab-cdef-0123-456789abcdef',
        day: '2026-02-28',
        moment: new Date('2026-02-28T23:59:59.123Z'),
        document: { a: [1, null, 'é'] },
      };
      await db.delete(types);
      await db.insert(types).values({ id: 1, big: 9007199254740993n, ...row });
      const [{ id, big, numbers, texts, ...found }] = await db.select().from(types);
      same([id, big.toString(), numbers, texts, found], [1, '9007199254740993', null, null, row]);
    }),

  arrays: (endpoint) =>
    connected(endpoint, async (db) => {
      const row = { numbers: [1, -2], texts: ['a', '', 'NULL', '{"x", \\y}'] };
      await db.delete(types);
      await db.insert(types).values({ id: 1, ...row });
      same(await db.select({ numbers: types.numbers, texts: types.texts }).from(types), [row]);
    }),

  errors: (endpoint) =>
    connected(endpoint, async (db) => {
      await db.delete(items);
      const insert = () => db.insert(items).values({ id: 1, note: 'note' });
      await insert();
      const { code, constraint } = await failureOf(insert);
      same([code, constraint], ['23505', `${ITEMS}_pkey`]);
      const syntax = await failureOf(() => db.execute(sql`SELECT 1 FROM WHERE`));
      same([syntax.code, syntax.position], ['42601', '15']);
      same((await db.execute(sql`SELECT 1 AS one`)).rows, [{ one: 1 }]);
    }),

  pool: (endpoint) =>
    connected(
      endpoint,
      async (db) => {
        const numbers = Array.from({ length: 40 }, (_, n) => n);
        const ask = async (on, n) => (await on.execute(sql`SELECT ${n}::integer AS n`)).rows[0].n;
        same(await Promise.all(numbers.map((n) => db.transaction((on) => ask(on, n)))), numbers);
      },
      4,
    ),
};

function openLoop(endpoint) {
  const { pool, db } = open(endpoint, 2);
  const insert = db
    .insert(loop)
    .values({ n: sql.placeholder('n') })
    .prepare('insert');
  return {
    insert: (n) => insert.execute({ n }),
    transaction: (n) =>
      db.transaction(async (on) => {
        await on.insert(loop).values({ n });
        same(await on.select({ max: max(loop.n) }).from(loop), [{ max: n }]);
      }),
    total: async () => {
      const [row] = await db.select({ count: count(), max: max(loop.n) }).from(loop);
      return [row.count, row.max];
    },
    close: () => pool.end(),
  };
}

await run(features, openLoop);
