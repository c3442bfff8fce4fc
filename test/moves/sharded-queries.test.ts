/**
 * One task: queries of every class have the answer of one PostgreSQL before, while and after their database is moved to two shards, back, and
 * there again. MOVED_QUERIES says how many of each class at least; docs/evidence/sharded-moves.md has a long run.
 */
import pg from 'pg';
import { expect, test } from 'vitest';
import { useSystem } from '../support/served.js';
import { CLASSES, QUERY_ROWS, queryOf, type Asked } from './query-classes.js';
import { streaming, turned } from './running-streams.js';
import { TENANTS_SCHEMA, TENANTS_SHARDING } from './tenants.js';

const OF_EACH_MIN = Number(process.env.MOVED_QUERIES ?? '20');
const CLIENTS = 3;
const REFUSED_SHARE_MAX = 0.05;

const system = useSystem({
  source: 18,
  destination: 18,
  schema: TENANTS_SCHEMA + QUERY_ROWS,
  shards: { destination: 2 },
  settings: { max_prepared_transactions: '10', max_logical_replication_workers: '16', max_worker_processes: '32' },
  sharding: TENANTS_SHARDING('prod_new'),
});

test('every class of query, through a move to shards, back, and there again', { timeout: 3_600_000 }, async () => {
  const { source } = system();
  await source.createDatabase('whole');
  await source.query('whole', TENANTS_SCHEMA + QUERY_ROWS);
  const compared = new Map(Object.keys(CLASSES).map((name) => [name, { answered: 0, refused: 0 }]));
  const different: string[] = [];
  let moving = true;
  const enough = (): boolean => !moving && [...compared.values()].every(({ answered }) => answered >= OF_EACH_MIN);
  const clients = Array.from({ length: CLIENTS }, async (_, client) => {
    const [here, whole] = await Promise.all([
      connected({ ...system().endpoint(), password: 'app secret' }),
      connected(source.endpoint('whole')),
    ]);
    for (let number = client; !enough() && different.length === 0; number += CLIENTS)
      for (const [name, counts] of compared) {
        const asked = queryOf(name, number);
        const [expected, actual] = await Promise.all([answerOf(whole, asked), answerOf(here, asked)]);
        expect(expected, asked.text).not.toContain('error');
        if (actual === 'error 0A000') counts.refused += 1;
        else counts.answered += 1;
        if (actual !== expected && actual !== 'error 0A000')
          different.push(`${name} ${number.toString()}: ${asked.text}\n one database: ${expected}\n here: ${actual}`);
      }
    await Promise.all([here.end(), whole.end()]);
  });
  await system().admin('RESHARD prod prod_new shop');
  await streaming(system(), ' (reverse)');
  await turned(system(), '');
  await turned(system(), ' (reverse)');
  moving = false;
  await Promise.all(clients);
  expect(different).toEqual([]);
  const counts = [...compared.values()];
  const sum = (of: 'answered' | 'refused'): number => counts.reduce((total, count) => total + count[of], 0);
  expect(sum('refused') / (sum('answered') + sum('refused'))).toBeLessThanOrEqual(REFUSED_SHARE_MAX);
  const moves = await system().admin<{ outcome: string }>('SHOW CUTOVERS');
  expect(moves.filter(({ outcome }) => outcome === 'committed')).toHaveLength(3);
  if (process.env.MOVED_QUERIES !== undefined) console.log(JSON.stringify(Object.fromEntries(compared)));
});

async function connected({
  host,
  port,
  database,
  user,
  password,
}: {
  host: string;
  port: number;
  database: string;
  user: string;
  password?: string;
}): Promise<pg.Client> {
  const client = new pg.Client({ host, port, database, user, ...(password === undefined ? {} : { password }) });
  client.on('error', () => undefined);
  await client.connect();
  await client.query('SET jit = off');
  return client;
}

/** The rows, or the error. Where the text does not say in which order, in one of their own. */
async function answerOf(client: pg.Client, { text, values, name, binary, then }: Asked): Promise<string> {
  const one = async (query: Omit<Asked, 'then'>): Promise<string> => {
    const { rows } = await client.query<Record<string, unknown>>({ ...query, values: [...(query.values ?? [])] });
    const lines = rows.map((row) => JSON.stringify(row));
    return (/ORDER BY|FETCH/.test(query.text) ? lines : lines.sort()).join('\n');
  };
  try {
    if (!then)
      return await one({
        text,
        ...(values ? { values } : {}),
        ...(name === undefined ? {} : { name }),
        ...(binary ? { binary } : {}),
      });
    await client.query('BEGIN');
    const answers = [await one({ text })];
    for (const next of then) answers.push(await one({ text: next }));
    await client.query('COMMIT');
    return answers.join('\n');
  } catch (error) {
    if (then) await client.query('ROLLBACK').catch(() => undefined);
    return `error ${(error as { code?: string }).code ?? String(error)}`;
  }
}
