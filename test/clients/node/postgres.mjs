/** One task: the features of postgres.js. */
import { readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { text } from 'node:stream/consumers';
import postgres from 'postgres';
import {
  CLIENT,
  ITEMS,
  LOOP,
  OTHER_CA,
  RUNNING,
  SLEEP,
  TRUSTED_CA,
  TYPES,
  failureOf,
  run,
  same,
  untilRunning,
  within,
} from './report.mjs';

const MOMENT = new Date('2026-02-28T23:59:59.123Z');

function open({ host, port, user, password, database, ssl }, max = 1) {
  return postgres({ host, port, user, password, database, ssl, max, onnotice: () => undefined });
}

async function connected(endpoint, work, max = 1) {
  const sql = open(endpoint, max);
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

const features = {
  connect: async (endpoint) => {
    const rows = await connected(endpoint, (sql) => sql`SELECT current_user AS name, current_database() AS base`);
    same(rows, [{ name: endpoint.user, base: endpoint.database }]);
    const wrong = { ...endpoint, password: 'wrong' };
    same((await failureOf(() => connected(wrong, (sql) => sql`SELECT 1`))).code, '28P01');
  },

  tls: async (endpoint) => {
    const verified = (authority) => ({ ...endpoint, ssl: { ca: readFileSync(authority) } });
    const ask = (to) => connected(to, (sql) => sql`SELECT 1 AS one`);
    const rows = await ask(verified(TRUSTED_CA));
    same(rows, [{ one: 1 }]);
    same((await failureOf(() => ask(verified(OTHER_CA)))).code, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE');
  },

  prepared: (endpoint) =>
    connected(endpoint, async (sql) => {
      for (let n = 1; n <= 20; n++) {
        same(await sql`SELECT ${n}::integer * 2 AS answer`, [{ answer: 2 * n }]);
        same(await sql`SELECT ${'n'}::text || ${n.toString()} AS answer`, [{ answer: `n${n}` }]);
      }
      // It sends what is asked for at once without waiting for answers.
      const answers = await Promise.all(Array.from({ length: 20 }, (_, n) => sql`SELECT ${n}::integer * 3 AS answer`));
      same(
        answers.map(([row]) => row.answer),
        Array.from({ length: 20 }, (_, n) => 3 * n),
      );
    }),

  transactions: (endpoint) =>
    connected(endpoint, async (sql) => {
      const insert = (on, id) => on`INSERT INTO ${sql(ITEMS)} VALUES (${id}, 'note')`;
      const ids = async () => (await sql`SELECT id FROM ${sql(ITEMS)} ORDER BY id`).map(({ id }) => id);
      await sql`DELETE FROM ${sql(ITEMS)}`;
      const rolledBack = new Error('rolled back');
      same(
        await failureOf(() =>
          sql.begin(async (on) => {
            await insert(on, 1);
            throw rolledBack;
          }),
        ).then(({ message }) => message),
        rolledBack.message,
      );
      same(await ids(), []);
      await sql.begin(async (on) => {
        await insert(on, 1);
        same((await failureOf(() => on.savepoint((inner) => insert(inner, 1)))).code, '23505');
        await insert(on, 2);
      });
      same(await ids(), [1, 2]);
    }),

  copy: (endpoint) =>
    connected(endpoint, async (sql) => {
      const lines = Array.from({ length: 1_000 }, (_, at) => `${at + 1}\tnote ${at + 1} é\n`);
      await sql`DELETE FROM ${sql(ITEMS)}`;
      await pipeline(Readable.from(lines), await sql`COPY ${sql(ITEMS)} FROM STDIN`.writable());
      const out = await sql`COPY (SELECT * FROM ${sql(ITEMS)} ORDER BY id) TO STDOUT`.readable();
      same(await text(out), lines.join(''));
    }),

  notify: (endpoint) =>
    connected(endpoint, async (sql) => {
      let hear;
      const heard = new Promise((resolve) => (hear = resolve));
      await sql.listen(CLIENT, hear);
      await sql.notify(CLIENT, 'hello');
      same(await within(endpoint.notifyWaitMs, 'the notification', heard), 'hello');
    }),

  cancel: (endpoint) =>
    connected(endpoint, async (sql) => {
      const query = sql.unsafe(SLEEP);
      const failed = failureOf(() => query);
      await connected(endpoint, (other) => untilRunning(async () => (await other.unsafe(RUNNING))[0].running));
      query.cancel();
      same((await failed).code, '57014');
      same(await sql`SELECT 1 AS one`, [{ one: 1 }]);
    }),

  types: (endpoint) =>
    connected(endpoint, async (sql) => {
      const row = {
        id: 1,
        small: -32768,
        big: '9007199254740993',
        exact: '1234.5600',
        double: 0.1,
        truth: true,
        words: "it's é\n",
        bytes: Buffer.from([0, 1, 92, 255]),
        code: '01234567-89ab-cdef-0123-456789abcdef',
        moment: MOMENT,
        document: { a: [1, null, 'é'] },
      };
      await sql`DELETE FROM ${sql(TYPES)}`;
      await sql`INSERT INTO ${sql(TYPES)} ${sql({ ...row, document: sql.json(row.document) })}`;
      same(await sql`SELECT ${sql(Object.keys(row))} FROM ${sql(TYPES)}`, [row]);
    }),

  arrays: (endpoint) =>
    connected(endpoint, async (sql) => {
      // Without nulls: the driver takes a null in an array for the text NULL.
      const numbers = ['1', '-9007199254740993'];
      const texts = ['a', '', '{"x", \\y}'];
      // The types of arrays are read from the server when it connects.
      same(await sql`SELECT ${numbers}::bigint[] AS numbers, ${texts}::text[] AS texts`, [{ numbers, texts }]);
    }),

  errors: (endpoint) =>
    connected(endpoint, async (sql) => {
      await sql`DELETE FROM ${sql(ITEMS)}`;
      const insert = () => sql`INSERT INTO ${sql(ITEMS)} VALUES (1, 'note')`;
      await insert();
      const { code, constraint_name } = await failureOf(insert);
      same([code, constraint_name], ['23505', `${ITEMS}_pkey`]);
      const syntax = await failureOf(() => sql`SELECT 1 FROM WHERE`);
      same([syntax.code, syntax.position], ['42601', '15']);
      same(await sql`SELECT 1 AS one`, [{ one: 1 }]);
    }),

  pool: (endpoint) =>
    connected(
      endpoint,
      async (sql) => {
        const numbers = Array.from({ length: 40 }, (_, n) => n);
        const answers = await Promise.all(
          numbers.map((n) => sql.begin(async (on) => (await on`SELECT ${n}::integer AS n`)[0].n)),
        );
        same(answers, numbers);
      },
      4,
    ),
};

async function openLoop(endpoint) {
  const sql = open(endpoint);
  const insert = (on, n) => on`INSERT INTO ${sql(LOOP)} (n) VALUES (${n})`;
  return {
    insert: (n) => insert(sql, n),
    transaction: (n) =>
      sql.begin(async (on) => {
        await insert(on, n);
        same(await on`SELECT max(n) FROM ${sql(LOOP)}`, [{ max: n }]);
      }),
    total: async () => {
      const [row] = await sql`SELECT count(*)::integer, max(n) FROM ${sql(LOOP)}`;
      return [row.count, row.max];
    },
    close: () => sql.end({ timeout: 5 }),
  };
}

await run(features, openLoop);
