/** One task: the features of node-postgres, with pg-copy-streams for COPY. */
import { readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { text } from 'node:stream/consumers';
import pg from 'pg';
import { from, to } from 'pg-copy-streams';
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

const COLUMNS = 'id, small, big, exact, double, truth, words, bytes, code, day::text, moment, document, numbers, texts';
const MOMENT = new Date('2026-02-28T23:59:59.123Z');

async function connected(endpoint, work) {
  const client = new pg.Client(endpoint);
  // A connection that is ended tells the query in flight; this is for one that has none.
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const features = {
  connect: async (endpoint) => {
    const sql = 'SELECT current_user AS name, current_database() AS base';
    const { rows } = await connected(endpoint, (client) => client.query(sql));
    same(rows, [{ name: endpoint.user, base: endpoint.database }]);
    same((await failureOf(() => connected({ ...endpoint, password: 'wrong' }, () => undefined))).code, '28P01');
  },

  tls: async (endpoint) => {
    const verified = (authority) => ({ ...endpoint, ssl: { ca: readFileSync(authority) } });
    const ask = (to) => connected(to, (client) => client.query('SELECT 1 AS one'));
    const { rows } = await ask(verified(TRUSTED_CA));
    same(rows, [{ one: 1 }]);
    same((await failureOf(() => ask(verified(OTHER_CA)))).code, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE');
  },

  prepared: (endpoint) =>
    connected(endpoint, async (client) => {
      for (let n = 1; n <= 20; n++) {
        const double = { name: 'double', text: 'SELECT $1::integer * 2 AS answer', values: [n] };
        const word = { name: 'word', text: 'SELECT $1::text || $2 AS answer', values: ['n', n.toString()] };
        same((await client.query(double)).rows, [{ answer: 2 * n }]);
        same((await client.query(word)).rows, [{ answer: `n${n}` }]);
      }
    }),

  transactions: (endpoint) =>
    connected(endpoint, async (client) => {
      const insert = (id) => client.query(`INSERT INTO ${ITEMS} VALUES ($1, $2)`, [id, 'note']);
      const ids = async () => (await client.query(`SELECT id FROM ${ITEMS} ORDER BY id`)).rows.map(({ id }) => id);
      await client.query(`DELETE FROM ${ITEMS}`);
      await client.query('BEGIN');
      await insert(1);
      await client.query('ROLLBACK');
      same(await ids(), []);
      await client.query('BEGIN');
      await insert(1);
      await client.query('SAVEPOINT here');
      same((await failureOf(() => insert(1))).code, '23505');
      await client.query('ROLLBACK TO here');
      await insert(2);
      await client.query('COMMIT');
      same(await ids(), [1, 2]);
    }),

  copy: (endpoint) =>
    connected(endpoint, async (client) => {
      const lines = Array.from({ length: 1_000 }, (_, at) => `${at + 1}\tnote ${at + 1} é\n`);
      await client.query(`DELETE FROM ${ITEMS}`);
      await pipeline(Readable.from(lines), client.query(from(`COPY ${ITEMS} FROM STDIN`)));
      same(await text(client.query(to(`COPY (SELECT * FROM ${ITEMS} ORDER BY id) TO STDOUT`))), lines.join(''));
    }),

  notify: (endpoint) =>
    connected(endpoint, async (listener) => {
      const heard = new Promise((resolve) => listener.once('notification', ({ payload }) => resolve(payload)));
      await listener.query(`LISTEN ${CLIENT}`);
      await connected(endpoint, (client) => client.query('SELECT pg_notify($1, $2)', [CLIENT, 'hello']));
      same(await within(endpoint.notifyWaitMs, 'the notification', heard), 'hello');
    }),

  cancel: (endpoint) =>
    connected(endpoint, async (client) => {
      const query = new pg.Query(SLEEP);
      const failed = failureOf(() => new Promise((resolve, reject) => query.on('end', resolve).on('error', reject)));
      client.query(query);
      await connected(endpoint, (other) => untilRunning(async () => (await other.query(RUNNING)).rows[0].running));
      new pg.Client(endpoint).cancel(client, query);
      same((await failed).code, '57014');
      same((await client.query('SELECT 1 AS one')).rows, [{ one: 1 }]);
    }),

  types: (endpoint) =>
    connected(endpoint, async (client) => {
      const bytes = Buffer.from([0, 1, 92, 255]);
      const code = '01234567-89ab-cdef-0123-456789abcdef';
      const document = { a: [1, null, 'é'] };
      const values = [1, -32768, '9007199254740993', '1234.5600', 0.1, true, "it's é\n", bytes, code, '2026-02-28'];
      await client.query(`DELETE FROM ${TYPES}`);
      await client.query(`INSERT INTO ${TYPES} VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, [
        ...values,
        MOMENT,
        document,
      ]);
      const { rows } = await client.query({ text: `SELECT ${COLUMNS} FROM ${TYPES}`, rowMode: 'array' });
      same(rows, [[...values, MOMENT, document, null, null]]);
    }),

  arrays: (endpoint) =>
    connected(endpoint, async (client) => {
      const values = [
        ['1', null, '-9007199254740993'],
        ['a', null, '', 'NULL', '{"x", \\y}'],
      ];
      const { rows } = await client.query({
        text: 'SELECT $1::bigint[], $2::text[]',
        values,
        rowMode: 'array',
      });
      same(rows, [values]);
    }),

  errors: (endpoint) =>
    connected(endpoint, async (client) => {
      await client.query(`DELETE FROM ${ITEMS}`);
      const insert = () => client.query(`INSERT INTO ${ITEMS} VALUES ($1, $2)`, [1, 'note']);
      await insert();
      const { code, constraint } = await failureOf(insert);
      same([code, constraint], ['23505', `${ITEMS}_pkey`]);
      const syntax = await failureOf(() => client.query('SELECT 1 FROM WHERE'));
      same([syntax.code, syntax.position], ['42601', '15']);
      same((await client.query('SELECT 1 AS one')).rows, [{ one: 1 }]);
    }),

  pool: async (endpoint) => {
    const pool = new pg.Pool({ ...endpoint, max: 4 });
    const answers = await Promise.all(Array.from({ length: 40 }, (_, n) => pool.query('SELECT $1::integer AS n', [n])));
    same(
      answers.map(({ rows }) => rows[0].n),
      Array.from({ length: 40 }, (_, n) => n),
    );
    await pool.end();
  },
};

async function openLoop(endpoint) {
  const client = new pg.Client(endpoint);
  client.on('error', () => undefined);
  await client.connect();
  const insert = (n) => client.query({ name: 'insert', text: `INSERT INTO ${LOOP} (n) VALUES ($1)`, values: [n] });
  return {
    insert,
    transaction: async (n) => {
      await client.query('BEGIN');
      await insert(n);
      same((await client.query(`SELECT max(n) FROM ${LOOP}`)).rows, [{ max: n }]);
      await client.query('COMMIT');
    },
    total: async () => {
      const { rows } = await client.query(`SELECT count(*)::integer, max(n) FROM ${LOOP}`);
      return [rows[0].count, rows[0].max];
    },
    close: () => client.end(),
  };
}

await run(features, openLoop);
