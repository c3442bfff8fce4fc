/** One task: reads of several clients that share a server connection are answered as if each had one of its own. */
import type pg from 'pg';
import { expect, test, vi } from 'vitest';
import type { PoolerMode } from '../../src/config/config.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { connect, withConnection } from '../../src/postgres/connection.js';
import { readFacts } from '../../src/proxy/pipelining/read-facts.js';
import { isShareable } from '../../src/proxy/pipelining/read-verdict.js';
import { loadStatementParser } from '../../src/sharding/statement-parser.js';
import { cstring, frame, int16, int32 } from '../../src/wire/backend.js';
import { EXECUTE, parse, SYNC } from '../../src/wire/frontend.js';
import { cancelStatement } from '../support/cancel.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, RawClient } from './support.js';

const clusters = useClusters({ main: { major: 18 } });
const SCHEMA = `CREATE TABLE item (id int PRIMARY KEY, name text, price numeric(10,2), tags int[], made timestamptz DEFAULT '2026-01-01Z');
  INSERT INTO item SELECT n, 'name ' || n, n * 1.5, ARRAY[n, n + 1] FROM generate_series(1, 1000) n;
  CREATE TABLE held (id int PRIMARY KEY); INSERT INTO held VALUES (1);
  CREATE SEQUENCE numbers; CREATE VIEW items AS SELECT * FROM item;
  CREATE TABLE guarded (id int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
  CREATE FUNCTION own_of(item) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'; CREATE DOMAIN checked AS text CHECK (value <> '');
  CREATE FUNCTION own(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1'`;

interface Started {
  readonly proxy: Proxy;
  readonly databaseName: string;
}

async function start(pipelining: 'auto' | 'off' = 'auto', databaseName = '', defaultPoolSize = 8): Promise<Started> {
  const name = databaseName === '' ? await freshDatabase(clusters.main) : databaseName;
  if (databaseName === '') await clusters.main.query(name, SCHEMA);
  const general = { pipelining, defaultPoolSize };
  const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName: name }], { general });
  return { proxy: await proxyFor({ config }), databaseName: name };
}

type Asked = string | pg.QueryConfig;

function clientsOf(proxy: Proxy, count: number): Promise<pg.Client[]> {
  return Promise.all(Array.from({ length: count }, () => clientOf(proxy, 'prod')));
}

function shared(proxy: Proxy): number {
  return proxy.stats()[0]?.sharedReads ?? 0;
}

/** Asks until it is answered by a lane: until then it is read of the catalogue, parsed and measured. */
async function meet(proxy: Proxy, client: pg.Client, asked: Asked): Promise<void> {
  await until(`a lane answers ${JSON.stringify(asked)}`, async () => {
    const before = shared(proxy);
    await client.query(asked).catch(() => undefined);
    return shared(proxy) > before;
  });
}

/** A statement of another session that keeps reads of `held` waiting until it is ended. */
async function hold(databaseName: string): Promise<() => Promise<void>> {
  const connection = await connect(clusters.main.endpoint(databaseName));
  await connection.query('BEGIN; LOCK TABLE public.held');
  return async () => {
    await connection.end();
  };
}

async function pidThatWaits(databaseName: string): Promise<number> {
  return until('a read waits for the lock', async () => {
    const [row] = await clusters.main.query<{ pid: number }>(
      'postgres',
      `SELECT pid FROM pg_stat_activity WHERE datname = '${databaseName}' AND wait_event_type = 'Lock'`,
    );
    return row?.pid;
  });
}

test('each client gets its own rows: simple, extended, and prepared, with errors in between', async () => {
  const { proxy } = await start();
  const clients = await clientsOf(proxy, 10);
  const [first] = clients as [pg.Client];
  const ways: readonly ((id: number) => Asked)[] = [
    (id) => `SELECT id, name, tags FROM item WHERE id = ${id.toString()}`,
    (id) => ({ text: 'SELECT id, name, tags FROM item WHERE id = $1', values: [id] }),
    (id) => ({ name: 'one', text: 'SELECT id, name, tags FROM item WHERE id = $1::int', values: [id] }),
    (id) => ({ name: 'failing', text: 'SELECT 1 / ($1::int % 2) AS id', values: [id] }),
  ];
  for (const way of ways) await meet(proxy, first, way(1));
  const before = shared(proxy);
  await Promise.all(
    clients.map(async (client, number) => {
      for (let round = 0; round < 40; round += 1) {
        const id = number * 40 + round + 1;
        const way = ways[(number + round) % ways.length];
        const answer = await client.query<{ id: number }>(way?.(id) ?? '').catch((error: unknown) => error);
        if (way === ways[3] && id % 2 === 0) expect(answer).toMatchObject({ code: '22012' });
        else expect(answer).toMatchObject({ rows: [{ id: way === ways[3] ? 1 : id }] });
      }
    }),
  );
  expect(shared(proxy)).toBeGreaterThan(before);
});

test('messages sent by hand: answers in binary, of a statement that each of them has prepared', async () => {
  const { proxy } = await start();
  const clients = await Promise.all(Array.from({ length: 6 }, () => RawClient.loggedIn(proxy, 'prod')));
  const body = Buffer.concat([cstring('SELECT id FROM item WHERE id = $1'), int16(1), int32(23)]);
  const formats = [int16(1), int16(1)];
  const run = (id: number): Buffer => {
    const value = Buffer.concat([int32(4), int32(id)]);
    const bind = frame('B', Buffer.from('\0named\0'), ...formats, int16(1), value, ...formats);
    return Buffer.concat([bind, EXECUTE, SYNC]);
  };
  for (const client of clients) client.send(parse('named', body), SYNC);
  for (const client of clients) expect(client.types(await client.until('Z'))).toBe('1Z');
  await until('a lane answers all', async () => {
    const before = shared(proxy);
    for (const [number, client] of clients.entries()) client.send(run(number + 300));
    for (const [number, client] of clients.entries()) {
      const messages = await client.until('Z');
      expect(client.types(messages)).toBe('2DCZ');
      expect(messages[1]?.bytes.readInt32BE(11)).toBe(number + 300);
    }
    return shared(proxy) >= before + clients.length;
  });
});

/** What must not be shared, and what is near it and may be. */
const NEVER = [
  'SELECT id FROM item WHERE id = 1 FOR UPDATE',
  'SELECT id FROM (SELECT id FROM item WHERE id = 1 FOR SHARE) inner_one',
  'SELECT random() FROM item WHERE id = 1',
  "SELECT nextval('numbers')",
  "SELECT set_config('work_mem', '4MB', true)",
  'SELECT pg_backend_pid()',
  'SELECT pg_advisory_xact_lock(1)',
  "SELECT current_setting('work_mem')",
  'SELECT own(1)',
  'SELECT item.own_of FROM item WHERE id = 1',
  "SELECT 'x'::checked",
  'SELECT id FROM items WHERE id = 1',
  'SELECT id FROM guarded',
  'SELECT relname FROM pg_class LIMIT 1',
  'WITH gone AS (DELETE FROM held WHERE id = 2 RETURNING id) SELECT * FROM gone',
  'SELECT 1; SELECT 2',
  'SELECT id INTO TEMP copied FROM item; DROP TABLE copied',
  'SELECT id FROM item TABLESAMPLE BERNOULLI (50)',
  'INSERT INTO held VALUES (5) ON CONFLICT DO NOTHING',
];
const MAY_BE = [
  'SELECT id, name FROM item WHERE id = $1',
  "SELECT count(*), max(price)::text FROM public.item i JOIN held USING (id) WHERE name LIKE 'a%' AND tags[1] IN (1, 2)",
  'SELECT lower(name), now(), CASE WHEN id > 3 THEN 1 END FROM item WHERE EXISTS (SELECT FROM held) ORDER BY 1 LIMIT 5',
  'SELECT id FROM item UNION ALL SELECT id FROM held',
];

test('PostgreSQL’s parser and the catalogue tell what may be shared', async () => {
  const { databaseName } = await start();
  const facts = await withConnection(clusters.main.endpoint(databaseName), readFacts);
  const parser = await loadStatementParser();
  const shareable = (text: string): boolean => isShareable(parser.parse(text), facts);
  expect(NEVER.filter(shareable)).toEqual([]);
  expect(MAY_BE.filter(shareable)).toEqual(MAY_BE);
});

test('what locks, writes, changes the session, calls what is not PostgreSQL’s own or is not known never enters', async () => {
  const { proxy, databaseName } = await start();
  const [client] = (await clientsOf(proxy, 1)) as [pg.Client];
  await meet(proxy, client, 'SELECT name FROM item WHERE id = 1');
  const before = shared(proxy);
  for (const text of NEVER) for (let round = 0; round < 4; round += 1) await client.query(text);
  await client.query('BEGIN');
  for (let round = 0; round < 4; round += 1) await client.query('SELECT name FROM item WHERE id = 1');
  await client.query('COMMIT');
  expect(shared(proxy)).toBe(before);
  // A function of that name has come: the change of the schema was seen.
  await meet(proxy, client, 'SELECT abs(id) FROM item WHERE id = 1');
  await client.query("CREATE FUNCTION abs(text) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'");
  const then = shared(proxy);
  for (let round = 0; round < 4; round += 1) await client.query('SELECT abs(id) FROM item WHERE id = 1');
  expect(shared(proxy)).toBe(then);
  expect(databaseName).not.toBe('');
});

test('a server that ends, and a read that waits for a lock: all others are answered, and it is too in the end', async () => {
  const { proxy, databaseName } = await start();
  const clients = await clientsOf(proxy, 6);
  const [first, ...others] = clients as [pg.Client, ...pg.Client[]];
  const reads = (): Promise<unknown[]> =>
    Promise.all(others.map((client, at) => client.query(`SELECT name FROM item WHERE id = ${(at + 1).toString()}`)));
  const names = others.map((_, at) => ({ rows: [{ name: `name ${(at + 1).toString()}` }] }));
  await meet(proxy, first, 'SELECT id FROM held');
  await meet(proxy, first, 'SELECT name FROM item WHERE id = 1');
  const release = await hold(databaseName);
  const blocked = first.query('SELECT id FROM held');
  const early = reads();
  const pid = await pidThatWaits(databaseName);
  // Nobody waits behind it for long.
  expect(await early).toMatchObject(names);
  const late = reads();
  await clusters.main.query('postgres', `SELECT pg_terminate_backend(${pid.toString()})`);
  expect(await late).toMatchObject(names);
  await release();
  expect((await blocked).rows).toEqual([{ id: 1 }]);
});

test('a cancel request stops the read of its own client alone', async () => {
  const { proxy, databaseName } = await start();
  const [first, second] = (await clientsOf(proxy, 2)) as [pg.Client, pg.Client];
  await meet(proxy, first, 'SELECT id FROM held');
  await meet(proxy, second, 'SELECT name FROM item WHERE id = 1');
  const release = await hold(databaseName);
  const blocked = first.query('SELECT id FROM held').catch((error: unknown) => error);
  const behind = second.query('SELECT name FROM item WHERE id = 2');
  await pidThatWaits(databaseName);
  await cancelStatement(proxy.address, first);
  expect(await blocked).toMatchObject({ code: '57014' });
  expect((await behind).rows).toEqual([{ name: 'name 2' }]);
  await release();
});

/** All but the first session wait for the one server of the pool, which the first has in a transaction. */
async function waiting(
  proxy: Proxy,
  [first, ...others]: readonly pg.Client[],
  asked: readonly Asked[],
): Promise<readonly Promise<unknown>[]> {
  await first?.query('BEGIN');
  const answers = others.map((client, index) =>
    client.query(asked[index] ?? '').then(
      ({ rows }) => rows as unknown,
      (error: unknown) => (error as { code?: string }).code,
    ),
  );
  await until('all wait', () => proxy.pools()[0]?.clientsWaiting === others.length);
  return answers;
}

test('reads that wait for a server of a full pool share it when it comes, in their order, and others have their turn', async () => {
  const { proxy } = await start('auto', '', 1);
  const clients = await clientsOf(proxy, 42);
  const [first] = clients as [pg.Client];
  const read = (id: number): Asked => ({ text: 'SELECT id FROM item WHERE id = $1', values: [id] });
  await meet(proxy, first, read(1));
  const asked = clients
    .slice(1)
    .map((_, index) => (index === 20 ? 'UPDATE item SET name = $$new$$ WHERE id = 1 RETURNING name' : read(index)));
  asked[30] = 'SELECT 1 / (id - 1) FROM item WHERE id = 1';
  asked[40] = 'SELECT name FROM item WHERE id = 1';
  const before = [shared(proxy), proxy.stats()[0]?.serverAssignments ?? 0];
  const answers = await waiting(proxy, clients, asked);
  await first.query('COMMIT');
  for (const [index, answer] of (await Promise.all(answers)).entries()) {
    if (index === 0) expect(answer).toEqual([]);
    else if (index === 20 || index === 40) expect(answer).toEqual([{ name: 'new' }]);
    else if (index === 30) expect(answer).toBe('22012');
    else expect(answer).toEqual([{ id: index }]);
  }
  const after = [shared(proxy), proxy.stats()[0]?.serverAssignments ?? 0];
  expect((after[0] ?? 0) - (before[0] ?? 0)).toBe(38);
  // How many may join is told by how long they are expected to take.
  expect((after[1] ?? 0) - (before[1] ?? 0)).toBeLessThan(21);
});

test('reads that wait for a server of a full pool wait at the gate when it closes meanwhile, and share when it opens', async () => {
  const { proxy } = await start('auto', '', 1);
  const clients = await clientsOf(proxy, 12);
  const [first] = clients as [pg.Client];
  await meet(proxy, first, 'SELECT id FROM item WHERE id = 1');
  const before = shared(proxy);
  const answers = await waiting(
    proxy,
    clients,
    clients.slice(1).map(() => 'SELECT id FROM item WHERE id = 1'),
  );
  const gate = proxy.gate('prod');
  gate.close('pause');
  await first.query('COMMIT');
  expect((await gate.drained(5_000)).drained).toBe(true);
  await until('all wait at the gate', () => gate.waitingCount === 11);
  expect(shared(proxy)).toBe(before);
  gate.open('pause');
  for (const answer of answers) expect(await answer).toEqual([{ id: 1 }]);
  expect(shared(proxy)).toBeGreaterThan(before);
});

test('who joined a read that does not come to an end has the place in the queue again that it had', async () => {
  const { proxy, databaseName } = await start('auto', '', 1);
  const clients = await clientsOf(proxy, 7);
  const [first, ...others] = clients as [pg.Client, ...pg.Client[]];
  await meet(proxy, first, 'SELECT id FROM held');
  await meet(proxy, first, 'SELECT name FROM item WHERE id = 1');
  const release = await hold(databaseName);
  await first.query('BEGIN');
  const asked = ['SELECT id FROM held', ...[2, 3].map((id) => `SELECT name FROM item WHERE id = ${id.toString()}`)];
  for (const id of [5, 6, 7]) asked.push(`UPDATE item SET name = name WHERE id = ${id.toString()}`);
  const answered: number[] = [];
  const answers: Promise<unknown>[] = [];
  for (const [index, client] of others.entries()) {
    answers.push(client.query(asked[index] ?? '').then(() => answered.push(index)));
    await until('it waits', () => proxy.pools()[0]?.clientsWaiting === index + 1);
  }
  await first.query('COMMIT');
  await pidThatWaits(databaseName);
  await until('those who joined wait once more', () => proxy.pools()[0]?.clientsWaiting === 5);
  await release();
  await Promise.all(answers);
  expect(answered).toEqual([0, 1, 2, 3, 4, 5]);
});

test('a text that waits for a server does not count as one that comes a second time', async () => {
  const { proxy } = await start('auto', '', 1);
  const clients = await clientsOf(proxy, 6);
  const [first] = clients as [pg.Client];
  await meet(proxy, first, 'SELECT name FROM item WHERE id = 1');
  const parsed = vi.spyOn(await loadStatementParser(), 'parse');
  const answers = await waiting(
    proxy,
    clients,
    clients.slice(1).map((_, index) => `SELECT name AS never_again_${'abcde'.charAt(index)} FROM item WHERE id = 1`),
  );
  await first.query('COMMIT');
  await Promise.all(answers);
  expect(parsed).not.toHaveBeenCalled();
  parsed.mockRestore();
});

test('a read whose client has left is stopped, and its server goes on with others', async () => {
  const { proxy, databaseName } = await start();
  const [first, second] = (await clientsOf(proxy, 2)) as [pg.Client, pg.Client];
  await meet(proxy, first, 'SELECT id FROM held');
  await meet(proxy, second, 'SELECT name FROM item WHERE id = 1');
  const release = await hold(databaseName);
  const blocked = first.query('SELECT id FROM held').catch(() => 'gone');
  const pid = await pidThatWaits(databaseName);
  (first as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
  expect(await blocked).toBe('gone');
  await until('its server does nothing', async () => {
    const [row] = await clusters.main.query<{ state: string }>(
      'postgres',
      `SELECT state FROM pg_stat_activity WHERE pid = ${pid.toString()}`,
    );
    return row?.state === 'idle';
  });
  expect((await second.query('SELECT name FROM item WHERE id = 2')).rows).toEqual([{ name: 'name 2' }]);
  await release();
});

test('a gate that closes waits for the reads that are under way, and lets no further one in', async () => {
  const { proxy, databaseName } = await start();
  const [first, second] = (await clientsOf(proxy, 2)) as [pg.Client, pg.Client];
  await meet(proxy, first, 'SELECT id FROM held');
  await meet(proxy, first, 'SELECT name FROM item WHERE id = 1');
  const release = await hold(databaseName);
  const blocked = first.query('SELECT id FROM held');
  await pidThatWaits(databaseName);
  const gate = proxy.gate('prod');
  gate.close('cutover');
  expect(gate.holders.map(({ serverPid }) => serverPid > 0)).toEqual([true]);
  let answered = false;
  const held = second.query('SELECT name FROM item WHERE id = 3').finally(() => (answered = true));
  const drained = gate.drained(10_000);
  await release();
  expect((await blocked).rows).toEqual([{ id: 1 }]);
  expect(await drained).toMatchObject({ drained: true });
  expect(answered).toBe(false);
  gate.open('cutover');
  expect((await held).rows).toEqual([{ name: 'name 3' }]);
});

test('an answer that is too long for a lane is had by itself, and the others are not held up', async () => {
  const { proxy } = await start();
  const [first, second] = (await clientsOf(proxy, 2)) as [pg.Client, pg.Client];
  const text = (bytes: number): string => `SELECT repeat('x', ${bytes.toString()}) AS long FROM item WHERE id = 1`;
  await meet(proxy, first, text(10));
  await meet(proxy, second, 'SELECT name FROM item WHERE id = 1');
  const [long, short] = await Promise.all([
    first.query<{ long: string }>(text(1_000_000)),
    second.query('SELECT name FROM item WHERE id = 2'),
  ]);
  expect(long.rows[0]?.long.length).toBe(1_000_000);
  expect(short.rows).toEqual([{ name: 'name 2' }]);
});

test('an answer that comes in several reads of the server’s socket is whole', async () => {
  const { proxy } = await start();
  const [first, second] = (await clientsOf(proxy, 2)) as [pg.Client, pg.Client];
  const text = (letter: string, times: number): string =>
    `SELECT repeat('${letter}', ${times.toString()}) AS long FROM item WHERE id = 1`;
  await meet(proxy, first, text('x', 10));
  const before = shared(proxy);
  const answers = await Promise.all([first.query(text('abc', 60_000)), second.query(text('xyz', 1_000))]);
  expect(answers.map(({ rows }) => rows as unknown[])).toEqual([
    [{ long: 'abc'.repeat(60_000) }],
    [{ long: 'xyz'.repeat(1_000) }],
  ]);
  expect(shared(proxy)).toBe(before + 2);
});

test('sessions in the other modes, and those of a database with replicas, share nothing', async () => {
  const names = ['prod', 'session', 'statement', 'replicas'];
  const targets = await Promise.all(
    names.map(async (name) => ({ name, cluster: clusters.main, databaseName: await freshDatabase(clusters.main) })),
  );
  for (const { databaseName } of targets) await clusters.main.query(databaseName, SCHEMA);
  const config = configFor(targets, { general: { pipelining: 'auto' } });
  const modeOf = (name: string): PoolerMode => (name === 'session' || name === 'statement' ? name : 'transaction');
  const users = config.users.map((user) => ({ ...user, poolerMode: modeOf(user.database) }));
  const replicas = config.databases.slice(-1).map((row) => ({ ...row, role: 'replica' as const }));
  const proxy = await proxyFor({ config: { ...config, users, databases: [...config.databases, ...replicas] } });
  const clients = await Promise.all(names.map((name) => clientOf(proxy, name)));
  const ask = (): Promise<unknown> =>
    Promise.all(clients.map((client) => client.query('SELECT name FROM item WHERE id = 1')));
  await until('a lane answers', async () => {
    await ask();
    return shared(proxy) > 0;
  });
  for (let round = 0; round < 5; round += 1) await ask();
  const sharing = proxy.stats().filter(({ sharedReads }) => sharedReads > 0);
  expect(sharing.map(({ database }) => database)).toEqual(['prod']);
});

/** The same numbers each time (a linear congruential generator with the constants of Numerical Recipes). */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function generatedRead(random: (below: number) => number): Asked {
  const id = random(1_100);
  const columns = ['id', 'name', 'price', 'tags', 'made', 'price * 2', 'length(name)', 'tags[1]', 'price / (id % 3)'];
  const column = columns[random(columns.length)] ?? '';
  const wheres = ['id = ?', 'id BETWEEN ? AND ? + 3', "name = 'name ' || ?", 'id IN (?, ? + 1)', 'missing = ?'];
  const where = wheres[random(wheres.length)] ?? '';
  const text = `SELECT ${column} AS value FROM item WHERE ${where} ORDER BY id`;
  const way = random(3);
  if (way === 0) return text.replaceAll('?', id.toString());
  const cast = text.replaceAll('?', '$1::int');
  return way === 1 ? { text: cast, values: [id] } : { name: cast.slice(0, 60), text: cast, values: [id] };
}

test('generated reads are answered the same with it and without it', async () => {
  const on = await start();
  const off = await start('off', on.databaseName);
  const random = generator(7);
  const asked = Array.from({ length: 400 }, () => generatedRead(random));
  const answersOf = async ({ proxy }: Started): Promise<readonly unknown[]> => {
    const clients = await clientsOf(proxy, 6);
    const answers: unknown[] = [];
    for (let round = 0; round < 2; round += 1)
      await Promise.all(
        clients.map(async (client, number) => {
          for (let at = number; at < asked.length; at += clients.length)
            answers[round * asked.length + at] = await client.query(asked[at] ?? '').then(
              ({ rows, fields }) => ({ rows: rows as unknown[], types: fields.map(({ dataTypeID }) => dataTypeID) }),
              (error: unknown) => ({ code: (error as { code: string }).code, message: (error as Error).message }),
            );
        }),
      );
    return answers;
  };
  expect(await answersOf(on)).toEqual(await answersOf(off));
  expect(shared(on.proxy)).toBeGreaterThan(0);
  expect(shared(off.proxy)).toBe(0);
});
