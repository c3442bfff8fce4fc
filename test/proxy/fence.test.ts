/** One task: a write the fence refused reaches the side that serves, once, or the client reads why not. */
import { expect, test } from 'vitest';
import type { Config, GeneralConfig } from '../../src/config/config.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { cstring, frame, int16, int32 } from '../../src/wire/backend.js';
import { describeStatement, parse, query, SYNC } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { clientOf, configFor, proxyFor, RawClient } from './support.js';

const clusters = useClusters({ source: { major: 17 }, destination: { major: 18 } });

const SCHEMA = 'CREATE TABLE entry (id int, body text)';
const FENCE = `
  CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'fenced' USING ERRCODE = 'CUT01'; END $$;
  CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON entry FOR EACH STATEMENT EXECUTE FUNCTION refuse()`;
const EXECUTE = frame('E', cstring(''), int32(0));
const body = (sql: string): Buffer => Buffer.concat([cstring(sql), int16(0)]);
const bind = (statement: string): Buffer => frame('B', cstring(''), cstring(statement), int16(0), int16(0), int16(0));

interface Sides {
  readonly proxy: Proxy;
  readonly databaseName: string;
  readonly refusals: string[];
  /** ids on the destination, in order */
  moved(): Promise<unknown[]>;
}

/** A fenced source; each refusal makes the proxy serve `prod` from the destination, unless `decide` says otherwise. */
async function start(
  decide?: (proxy: Proxy, swapped: Config) => Promise<void>,
  general: Partial<GeneralConfig> = {},
): Promise<Sides> {
  const databaseName = await freshDatabase(clusters.source);
  await clusters.destination.createDatabase(databaseName);
  await clusters.source.query(databaseName, `${SCHEMA}; ${FENCE}`);
  await clusters.destination.query(databaseName, SCHEMA);
  const target = (name: string, cluster: 'source' | 'destination') => ({
    name,
    cluster: clusters[cluster],
    databaseName,
  });
  const config = configFor([target('prod', 'source'), target('prod_new', 'destination')], { general });
  const swapped = configFor([target('prod', 'destination'), target('prod_new', 'source')], { general });
  const refusals: string[] = [];
  const onFenceRefusal = async (database: string): Promise<void> => {
    refusals.push(database);
    if (decide) await decide(proxy, swapped);
    else proxy.apply(swapped);
  };
  const proxy: Proxy = await proxyFor({ config, hooks: { onFenceRefusal } });
  const moved = async (): Promise<unknown[]> =>
    (await clusters.destination.query(databaseName, 'SELECT id FROM entry ORDER BY id')).map((row) => row.id);
  return { proxy, databaseName, refusals, moved };
}

test('simple, extended and prepared writes are sent anew without the client noticing', async () => {
  const attempts: ((sides: Sides) => Promise<unknown>)[] = [
    async ({ proxy }) => (await clientOf(proxy, 'prod')).query('INSERT INTO entry VALUES (1)'),
    async ({ proxy }) => (await clientOf(proxy, 'prod')).query('INSERT INTO entry VALUES ($1) RETURNING id', [1]),
    async ({ proxy }) => {
      const client = await clientOf(proxy, 'prod');
      await client.query({ name: 'read', text: 'SELECT count(*) FROM entry' });
      return client.query({ name: 'write', text: 'INSERT INTO entry VALUES ($1)', values: [1] });
    },
    async ({ proxy }) => (await clientOf(proxy, 'prod')).query('INSERT INTO entry VALUES (1); SELECT 1'),
  ];
  for (const attempt of attempts) {
    const sides = await start();
    await attempt(sides);
    expect(await sides.moved()).toEqual([1]);
    expect(sides.refusals).toEqual(['prod']);
  }
});

test('the gate that the hook closes is waited for before the statement goes out anew', async () => {
  let reopen: () => void = () => undefined;
  const sides = await start((proxy, swapped) => {
    proxy.gate('prod').close('recovery');
    reopen = () => {
      proxy.apply(swapped);
      proxy.gate('prod').open('recovery');
    };
    return Promise.resolve();
  });
  const client = await clientOf(sides.proxy, 'prod');
  const write = client.query('INSERT INTO entry VALUES (1)');
  await expect.poll(() => sides.proxy.gate('prod').waitingCount).toBe(1);
  expect(await sides.proxy.gate('prod').drained(1_000)).toMatchObject({ drained: true });
  reopen();
  await write;
  expect(await sides.moved()).toEqual([1]);
});

test('what waits at that gate does not run meanwhile: query_timeout passes it by', async () => {
  let reopen: () => void = () => undefined;
  const decide = (proxy: Proxy, swapped: Config): Promise<void> => {
    proxy.gate('prod').close('recovery');
    reopen = () => {
      proxy.apply(swapped);
      proxy.gate('prod').open('recovery');
    };
    return Promise.resolve();
  };
  const sides = await start(decide, { queryTimeoutMs: 100 });
  const client = await clientOf(sides.proxy, 'prod');
  const write = client.query('INSERT INTO entry VALUES (1)');
  write.catch(() => undefined);
  await expect.poll(() => sides.proxy.gate('prod').waitingCount).toBe(1);
  // Begun later, and past its time: whatever else is past its own has been cancelled with it.
  const other = await clientOf(sides.proxy, 'prod_new');
  await expect(other.query('SELECT pg_sleep(60)')).rejects.toMatchObject({ code: '57014' });
  reopen();
  await write;
  expect(await sides.moved()).toEqual([1]);
});

test('inside an open transaction the client reads the refusal and rolls back itself', async () => {
  const sides = await start();
  const client = await clientOf(sides.proxy, 'prod');
  await client.query('BEGIN');
  await expect(client.query('INSERT INTO entry VALUES (1)')).rejects.toMatchObject({ code: 'CUT01' });
  await client.query('ROLLBACK');
  expect(sides.refusals).toEqual([]);
  const block = client.query('BEGIN; INSERT INTO entry VALUES (1); COMMIT');
  await expect(block).rejects.toMatchObject({ code: 'CUT01' });
  await client.query('ROLLBACK');
  expect(sides.refusals).toEqual([]);
  expect(await sides.moved()).toEqual([]);
});

test('a batch of which something was done or said already is not sent twice', async () => {
  const sides = await start();
  const client = await clientOf(sides.proxy, 'prod');
  const partly = client.query('CREATE TABLE done (id int); COMMIT; INSERT INTO entry VALUES (1)');
  await expect(partly).rejects.toMatchObject({ code: 'CUT01' });
  expect(sides.refusals).toEqual([]);
  const raw = await RawClient.loggedIn(sides.proxy, 'prod');
  raw.send(parse('', body('INSERT INTO entry VALUES (1)')), frame('H'));
  expect(raw.types(await raw.until('1'))).toBe('1');
  raw.send(bind(''), EXECUTE, SYNC);
  expect(raw.types(await raw.until('Z'))).toBe('2EZ');
  expect(await sides.moved()).toEqual([]);
});

test('a client that asks for answers after the refusal gets it, and nothing is sent twice', async () => {
  const sides = await start();
  const raw = await RawClient.loggedIn(sides.proxy, 'prod');
  raw.send(parse('', body('INSERT INTO entry VALUES (1)')), bind(''), EXECUTE);
  await expect.poll(() => sides.proxy.servers().some((server) => server.errors > 0)).toBe(true);
  raw.send(frame('H'));
  expect(raw.types(await raw.until('E'))).toBe('12E');
  raw.send(SYNC);
  expect(raw.types(await raw.until('Z'))).toBe('Z');
  expect(sides.refusals).toEqual([]);
});

test("with more batches in flight behind it, the refusal is the client's to handle", async () => {
  const sides = await start();
  const raw = await RawClient.loggedIn(sides.proxy, 'prod');
  const write = (id: number): Buffer =>
    Buffer.concat([parse('', body(`INSERT INTO entry VALUES (${id.toString()})`)), bind(''), EXECUTE, SYNC]);
  raw.send(write(1), write(2));
  const messages = await raw.until('Z', 2);
  expect(raw.types(messages)).toBe('12EZ12EZ');
  expect(sides.refusals).toEqual([]);
  expect(await sides.moved()).toEqual([]);
});

test('a statement named in the refused batch is prepared on the new side', async () => {
  const sides = await start();
  const raw = await RawClient.loggedIn(sides.proxy, 'prod');
  raw.send(
    parse('write', body('INSERT INTO entry VALUES (1)')),
    describeStatement('write'),
    bind('write'),
    EXECUTE,
    SYNC,
  );
  const messages = await raw.until('Z');
  expect(raw.types(messages.filter((message) => message.type !== 'S'))).toBe('1tn2CZ');
  raw.send(bind('write'), EXECUTE, SYNC);
  expect(raw.types(await raw.until('Z'))).toBe('2CZ');
  expect(await sides.moved()).toEqual([1, 1]);
});

test('the client reads the refusal when the hook says so, or after three tries', async () => {
  const rejecting = await start(() => Promise.reject(new Error('no decision')));
  const client = await clientOf(rejecting.proxy, 'prod');
  await expect(client.query('INSERT INTO entry VALUES (1)')).rejects.toMatchObject({ code: 'CUT01' });
  expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  const useless = await start(() => Promise.resolve());
  const other = await clientOf(useless.proxy, 'prod');
  await expect(other.query('INSERT INTO entry VALUES ($1)', [1])).rejects.toMatchObject({ code: 'CUT01' });
  expect(useless.refusals).toHaveLength(3);
  expect((await other.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('a batch too large to be kept is refused, not half sent', async () => {
  const sides = await start();
  const raw = await RawClient.loggedIn(sides.proxy, 'prod');
  raw.send(query(`INSERT INTO entry VALUES (1, '${'x'.repeat(2_000_000)}')`));
  expect(raw.types(await raw.until('Z'))).toBe('EZ');
  expect(sides.refusals).toEqual([]);
});

test('a client that leaves while the hook is asked gets nothing sent anew', async () => {
  let decide: () => void = () => undefined;
  const sides = await start(
    (proxy, swapped) =>
      new Promise((resolve) => {
        decide = () => {
          proxy.apply(swapped);
          resolve();
        };
      }),
  );
  const raw = await RawClient.loggedIn(sides.proxy, 'prod');
  raw.send(query('INSERT INTO entry VALUES (1)'));
  await expect.poll(() => sides.refusals.length).toBe(1);
  raw.socket.destroy();
  await expect.poll(() => sides.proxy.clients().length).toBe(0);
  decide();
  const client = await clientOf(sides.proxy, 'prod');
  await client.query('INSERT INTO entry VALUES (2)');
  expect(await sides.moved()).toEqual([2]);
});
