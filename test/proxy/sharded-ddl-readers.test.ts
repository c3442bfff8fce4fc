/**
 * One task: who reads over the shards while their schema changes waits, and sees the old schema or the new one, by every proxy and whoever
 * dies; and a change after which nobody would find the rows is not made.
 */
import type pg from 'pg';
import { expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { engineEndpoint } from '../../src/postgres/endpoint.js';
import { connect } from '../../src/postgres/connection.js';
import { TWO_PHASE_DDL } from '../../src/postgres/two-phase.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { cancelRequest } from '../../src/wire/frontend.js';
import type { ChangeOptions } from '../../src/sharding/coordinator-change.js';
import { keepCoordinator } from '../../src/sharding/coordinator-keeping.js';
import { coordinatorAt } from '../../src/sharding/coordinator-place.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';
import { failure, HERE, THERE, useShards, type Sharded } from './shards.js';
import { clientOf, proxyFor, RawClient } from './support.js';

const shards = useShards();
const SHARDS = [0, 1];

/** Two columns, and a view of them that keeps its own names whatever they are called. */
const PAIR = `CREATE TABLE pair (tenant_id bigint PRIMARY KEY, one int, two int);
  CREATE VIEW told AS SELECT tenant_id, one AS first, two AS second FROM pair;
  CREATE TABLE empty (id int PRIMARY KEY)`;
const PAIRED = SHARDS.map(() => 'tenant_id one two');
const SWAP = ['RENAME one TO three', 'RENAME two TO one', 'RENAME three TO two'];
const TOLD = 'SELECT first, second FROM told ORDER BY tenant_id';
const SUM = 'SELECT sum(one)::int AS one FROM pair';
const RIGHT = [1, 1].map((first) => ({ first, second: 2 }));

let made: Promise<Sharded> | null = null;

/** The shards are those of the whole file, and the proxies those of the test. */
function start(): Promise<Sharded> {
  made ??= (async () => {
    const sharded = await shards();
    for (const shard of SHARDS) await sharded.on(shard, `${TWO_PHASE_DDL}; ${PAIR}`);
    await sharded.on(0, `INSERT INTO pair VALUES (${HERE.toString()}, 1, 2)`);
    await sharded.on(1, `INSERT INTO pair VALUES (${THERE.toString()}, 1, 2)`);
    await keepCoordinator(sharded.config, 'prod');
    return sharded;
  })();
  return made;
}

async function clientWith(config: Config, schemaChanges: Partial<ChangeOptions> = {}): Promise<pg.Client> {
  return clientOf(await proxyFor({ config, schemaChanges }), 'prod');
}

async function swap(client: pg.Client): Promise<void> {
  await client.query('BEGIN');
  for (const step of SWAP) await client.query(`ALTER TABLE pair ${step}`);
  await client.query('COMMIT');
}

async function columnsOf({ on }: Sharded, table: string): Promise<readonly string[]> {
  const columns = `SELECT string_agg(attname, ' ' ORDER BY attnum) AS names FROM pg_attribute
    WHERE attrelid = '${table}'::regclass AND attnum > 0 AND NOT attisdropped`;
  return Promise.all(SHARDS.map(async (shard) => String((await on(shard, columns))[0]?.names)));
}

/** The way of a session to the coordinator itself, which no proxy has. */
function atCoordinator(config: Config): ReturnType<typeof connect> {
  return connect(coordinatorAt(config, 'prod', engineEndpoint(config, 'prod')));
}

/** Nobody is kept waiting any more, and no session of the engine's is open there. */
async function expectNothingHeld(config: Config): Promise<void> {
  const connection = await atCoordinator(config);
  const left = `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'cutover'
    AND pid <> pg_backend_pid()`;
  await until('no session at the coordinator', async () => (await connection.query(left)).rows.length === 0);
  await connection.end();
}

/** Ends the sessions that the change has on both servers, as the death of its proxy does. */
async function die({ on }: Sharded): Promise<void> {
  const all = `SELECT count(pg_terminate_backend(pid, 5000)) FROM (
    SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = ${(0x43555443).toString()}) AS held`;
  for (const shard of SHARDS) await on(shard, all);
}

/** Reads over both shards until it is told to stop. @returns what it was answered, each once */
async function reading(proxy: Proxy, stopped: () => boolean): Promise<readonly string[]> {
  const client = await clientOf(proxy, 'prod');
  const told = new Set<string>();
  try {
    while (!stopped()) told.add(JSON.stringify((await client.query(TOLD)).rows));
  } catch (error) {
    told.add(String(error));
  }
  return [...told];
}

test('a change after which nobody would find the rows is refused, and reads go on', async () => {
  const sharded = await start();
  const client = await clientWith(sharded.config);
  const refused = async (statement: string): Promise<string> => (await failure(client.query(statement))).message;
  expect(await refused('ALTER TABLE pair DROP COLUMN tenant_id CASCADE')).toContain(
    'the rows of public.pair are on their shards by the column tenant_id, and would be looked for by no column',
  );
  expect(await refused('ALTER TABLE pair RENAME tenant_id TO tenant')).toContain('public.pair');
  expect(await refused('ALTER TABLE notes ALTER tenant_id TYPE text')).toContain('is of type text and not bigint');
  expect(await refused('ALTER TABLE rates ADD COLUMN tenant_id bigint DEFAULT 1')).toContain('public.rates');
  await client.query('BEGIN');
  for (const step of ['RENAME tenant_id TO three', 'ADD COLUMN tenant_id bigint'])
    await client.query(`ALTER TABLE pair ${step}`);
  expect(await refused('COMMIT')).toContain('public.pair');
  expect(await columnsOf(sharded, 'pair')).toEqual(PAIRED);
  expect((await client.query(TOLD)).rows).toEqual(RIGHT);
  // Nobody misses a row of an empty one.
  await client.query('ALTER TABLE empty ADD COLUMN tenant_id bigint');
  await client.query('INSERT INTO empty VALUES (1, $1), (2, $2)', [HERE, THERE]);
  expect((await client.query('SELECT count(*)::int AS n FROM empty')).rows).toEqual([{ n: 2 }]);
});

test('who reads at the coordinator is waited for, but not for ever, and not by an index', async () => {
  const sharded = await start();
  const client = await clientWith(sharded.config, { waitMs: 300 });
  const reader = await clientWith(sharded.config);
  await reader.query('BEGIN');
  await reader.query(TOLD);
  const refused = await failure(client.query('ALTER TABLE pair ADD COLUMN more int'));
  expect(refused.code).toBe('40000');
  expect(refused.message).toMatch(/process \d+ of postgres has been reading at the coordinator/);
  await client.query('CREATE INDEX by_one ON pair (one)');
  for (const shard of SHARDS)
    expect(await sharded.on(shard, `SELECT to_regclass('by_one')::text AS name`)).toEqual([{ name: 'by_one' }]);
  expect((await reader.query(TOLD)).rows).toEqual(RIGHT);
  // Who waits may be told not to.
  const patient = await proxyFor({ config: sharded.config });
  const waiting = await clientOf(patient, 'prod');
  const cancelled = failure(waiting.query('ALTER TABLE pair ADD COLUMN more int'));
  const { processID, secretKey } = waiting as unknown as { processID: number; secretKey: number };
  const secret = Buffer.alloc(4);
  secret.writeInt32BE(secretKey);
  await until('it waits', async () => (await sharded.on(0, 'SELECT pid FROM pg_locks WHERE NOT granted')).length > 0);
  const other = new RawClient(patient);
  other.send(cancelRequest(processID, secret));
  await until('the proxy has it', () => other.closed);
  await reader.query('COMMIT');
  expect((await cancelled).message).toContain('it was cancelled');
  expect(await columnsOf(sharded, 'pair')).toEqual(PAIRED);
  await expectNothingHeld(sharded.config);
});

test('a transaction that has read over the shards may change the schema, and one that is left lets readers go on', async () => {
  const { config } = await start();
  const [client, reader] = [await clientWith(config), await clientWith(config)];
  // Which proxy has looked at the coordinator before lets its clients wait; another one would refuse them.
  expect((await reader.query(TOLD)).rows).toEqual(RIGHT);
  await client.query('BEGIN');
  expect((await client.query(TOLD)).rows).toEqual(RIGHT);
  await client.query('ALTER TABLE pair ADD COLUMN later int');
  await client.query('ROLLBACK');
  await client.query('BEGIN');
  expect((await client.query(TOLD)).rows).toEqual(RIGHT);
  await client.query('ALTER TABLE pair ADD COLUMN later int');
  const read = reader.query(TOLD);
  await client.end();
  expect((await read).rows).toEqual(RIGHT);
  await expectNothingHeld(config);
});

test('a change that lets readers wait for too long is not committed', async () => {
  const sharded = await start();
  const client = await clientWith(sharded.config, { holdMs: 100 });
  await client.query('BEGIN');
  await client.query('ALTER TABLE pair ADD COLUMN later int');
  await expectNothingHeld(sharded.config);
  expect((await failure(client.query('COMMIT'))).message).toContain('readers have waited for 0.1 s');
  // One that runs by then need not run to its end.
  const slow = client.query('ALTER TABLE pair ADD COLUMN later text DEFAULT pg_sleep(50)::text');
  expect((await failure(slow)).message).toContain('readers have waited for 0.1 s');
  expect(await columnsOf(sharded, 'pair')).toEqual(PAIRED);
});

test('columns that swap their names are never read swapped, by any proxy, and nobody reads an error', async () => {
  const { config } = await start();
  const [proxy, other] = [await proxyFor({ config }), await proxyFor({ config })];
  const client = await clientOf(proxy, 'prod');
  let stopped = false;
  const readers = [proxy, other, other].map((each) => reading(each, () => stopped));
  const sums: unknown[] = [];
  try {
    for (let swaps = THOROUGH ? 10 : 1; swaps > 0; swaps -= 1) {
      await swap(client);
      const { rows } = await client.query(SUM);
      sums.push(rows[0]);
    }
  } finally {
    stopped = true;
  }
  expect(sums.slice(0, 2)).toEqual([{ one: 4 }, { one: 2 }].slice(0, sums.length));
  for (const told of await Promise.all(readers)) expect(told).toEqual([JSON.stringify(RIGHT)]);
});

test.each(['commit', 'make'] as const)(
  'a proxy that dies before %s leaves no wrong answer, and others repair it',
  async (death) => {
    const sharded = await start();
    const { config } = sharded;
    const reader = await clientWith(config);
    expect((await reader.query(TOLD)).rows).toEqual(RIGHT);
    const sum = (await reader.query<{ one: number }>(SUM)).rows[0]?.one === 2 ? 4 : 2;
    let read: Promise<unknown> = Promise.resolve();
    const onStep: ChangeOptions['onStep'] = async (step) => {
      if (step === death) {
        read = failure(reader.query(TOLD));
        await die(sharded);
      }
      // Nothing more is done by who is dead.
      if (step === 'make') throw new Error('dead');
    };
    const client = await clientWith(config, { onStep });
    const swapped = swap(client).then(
      () => true,
      () => false,
    );
    expect(await swapped).toBe(death === 'make');
    expect(await read).toMatchObject({ message: expect.stringContaining('user mapping not found') as unknown });
    const next = await clientWith(config);
    const answered = await until('the coordinator is in step', () =>
      next.query<object>(TOLD).then(
        ({ rows }) => rows,
        () => null,
      ),
    );
    expect(answered).toEqual(RIGHT);
    expect((await next.query(SUM)).rows).toEqual([{ one: death === 'make' ? sum : 6 - sum }]);
  },
);

if (THOROUGH)
  test('two changes at once are made one after the other', async () => {
    const sharded = await start();
    const clients = [await clientWith(sharded.config), await clientWith(sharded.config)];
    await Promise.all(
      clients.map((client, at) => client.query(`ALTER TABLE pair ADD COLUMN new_${at.toString()} int`)),
    );
    const [client] = clients;
    expect((await client?.query('SELECT count(new_0)::int + count(new_1)::int AS n FROM pair'))?.rows).toEqual([
      { n: 0 },
    ]);
  });
