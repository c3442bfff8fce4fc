/** One task: clients of every kind, each of which repeats what it does until it is told to end, and says which server it was at. */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { from, to } from 'pg-copy-streams';
import postgres from 'postgres';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { cancelStatement } from '../support/cancel.js';

/** Rows that a client has written say who wrote them. */
export const CROSSING_TABLE = `
CREATE TABLE crossing (kind text NOT NULL, n integer NOT NULL, server integer NOT NULL DEFAULT current_setting('port')::integer,
  PRIMARY KEY (kind, n));`;
const PORT = `current_setting('port')::integer`;
const INSERT = `INSERT INTO crossing VALUES ($1, $2) RETURNING server`;
/** Of a client that has something going on for a while: shorter than a drain waits. */
const STEP_MS = 20;
const PIPELINE = 20;
const COPIED = 2_000;
const HEARD_MS = 20_000;

/** What one kind of client does, again and again. */
interface Kind {
  /** rows that a round writes */
  readonly rows: number;
  /**
   * Connects, and answers what one round does.
   *
   * @param n numbers of its rows begin there
   * @returns of `round`: the port of the server that it was at
   */
  readonly open: (endpoint: Endpoint) => Promise<{ round(n: number): Promise<number>; close(): Promise<void> }>;
}

/** One client that repeats its rounds. */
export class Crossing {
  readonly name: string;
  /** ports of its servers, in the order in which it met them */
  readonly servers: number[] = [];
  readonly errors: string[] = [];
  /** rows it was told are written */
  rows = 0;
  /** where its last round was */
  server = 0;
  #over = false;
  readonly #running: Promise<void>;

  constructor(name: string, kind: Kind, endpoint: Endpoint) {
    this.name = name;
    this.#running = this.#run(kind, endpoint).catch((error: unknown) => {
      this.errors.push(String(error));
    });
  }

  async end(): Promise<void> {
    this.#over = true;
    await this.#running;
  }

  async #run(kind: Kind, endpoint: Endpoint): Promise<void> {
    const client = await kind.open(endpoint);
    try {
      while (!this.#over) {
        this.server = await client.round(this.rows);
        this.rows += kind.rows;
        if (this.servers.at(-1) !== this.server) this.servers.push(this.server);
        await sleep(STEP_MS);
      }
    } finally {
      await client.close();
    }
  }
}

async function connected(endpoint: pg.ClientConfig): Promise<pg.Client> {
  const client = new pg.Client(endpoint);
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** A kind that has one connection of node-postgres for all its rounds. */
function steady(
  rows: number,
  work: (client: pg.Client, n: number, name: string) => Promise<number>,
  prepare: (client: pg.Client) => Promise<unknown> = () => Promise.resolve(),
  options: pg.ClientConfig = {},
): (name: string) => Kind {
  return (name) => ({
    rows,
    open: async (endpoint) => {
      const client = await connected({ ...endpoint, ...options });
      await prepare(client);
      return { round: (n) => work(client, n, name), close: () => client.end() };
    },
  });
}

async function one(client: pg.Client, text: string, values: unknown[] = []): Promise<number> {
  const { rows } = await client.query<number[]>({ text, values, rowMode: 'array' });
  return rows[0]?.[0] ?? 0;
}

function expectEqual(what: string, found: unknown, expected: unknown): void {
  const [has, wanted] = [JSON.stringify(found), JSON.stringify(expected)];
  if (has !== wanted) throw new Error(`${what}: found ${has}, expected ${wanted}`);
}

/** A kind that has one connection of postgres.js, which sends what it is asked without waiting for answers. */
function pipelining(
  rows: number,
  work: (sql: postgres.Sql, n: number, name: string) => Promise<number>,
): (name: string) => Kind {
  return (name) => ({
    rows,
    open: ({ host, port, database, user, password }) => {
      const sql = postgres({ host, port, database, user, password: password ?? '', max: 1 });
      return Promise.resolve({ round: (n) => work(sql, n, name), close: () => sql.end({ timeout: 5 }) });
    },
  });
}

const inserted = (sql: postgres.Sql, name: string, n: number): postgres.PendingQuery<{ server: number }[]> =>
  sql<{ server: number }[]>`INSERT INTO crossing VALUES (${name}, ${n}) RETURNING server`;

/** Several statements are on the way at once, each a transaction. */
const pipelined = pipelining(PIPELINE, async (sql, n, name) => {
  const answers = await Promise.all(Array.from({ length: PIPELINE }, (_, at) => inserted(sql, name, n + at)));
  return answers.at(-1)?.[0]?.server ?? 0;
});

/** As before, and one of them fails: those before and behind it are not concerned. */
const failing = pipelining(2, async (sql, n, name) => {
  const failed = sql`SELECT 1 / ${0}::integer`.catch((error: unknown) => error);
  const [error, ...answers] = await Promise.all([failed, inserted(sql, name, n), inserted(sql, name, n + 1)]);
  expectEqual('its error', (error as { code?: string }).code, '22012');
  return answers.at(-1)?.[0]?.server ?? 0;
});

/** A portal is asked for a few rows at a time, without a Sync in between. */
const portal = pipelining(0, async (sql) => {
  const values: number[] = [];
  let server = 0;
  const asked = sql<{ value: number; server: number }[]>`
    SELECT value, current_setting('port')::integer AS server FROM generate_series(1, 20) AS value`;
  for await (const rows of asked.cursor(5)) {
    for (const row of rows) values.push(row.value);
    server = rows[0]?.server ?? 0;
    await sleep(STEP_MS);
  }
  const all = Array.from({ length: 20 }, (_, at) => at + 1);
  expectEqual('values', values, all);
  return server;
});

/** A statement that is prepared once. */
const named = steady(1, async (client, n, name) => {
  const { rows } = await client.query<{ server: number }>({ name: 'insert', text: INSERT, values: [name, n] });
  return rows[0]?.server ?? 0;
});

/** A cursor is open for a while, in a transaction with settings of its own. */
const cursor = steady(1, async (client, n, name) => {
  await client.query(`BEGIN; SET LOCAL application_name = 'with a cursor'`);
  await client.query('DECLARE here CURSOR FOR SELECT generate_series(1, 20) AS value');
  for (let from = 1; from <= 20; from += 5) {
    const { rows } = await client.query<{ value: number }>('FETCH 5 FROM here');
    expectEqual(
      'fetched',
      rows.map(({ value }) => value),
      [from, from + 1, from + 2, from + 3, from + 4],
    );
    await sleep(STEP_MS);
  }
  const server = await one(client, INSERT, [name, n]);
  await client.query('COMMIT');
  return server;
});

/** Reads that come once more each time, as those do that share a server with others: what was written just before is there. */
const reads = steady(1, async (client, n, name) => {
  const server = await one(client, INSERT, [name, n]);
  for (let again = 0; again < 5; again += 1)
    expectEqual('rows', await one(client, 'SELECT count(*)::integer FROM crossing WHERE kind = $1', [name]), n + 1);
  return server;
});

/** Rows come in pieces, with a while between them. */
const copyIn = steady(10, async (client, n, name) => {
  const stream = client.query(from('COPY crossing (kind, n) FROM STDIN'));
  const done = once(stream, 'finish');
  for (let at = 0; at < 10; at += 1) {
    stream.write(`${name}\t${(n + at).toString()}\n`);
    await sleep(STEP_MS / 2);
  }
  stream.end();
  await done;
  return one(client, `SELECT server FROM crossing WHERE kind = '${name}' AND n = ${n.toString()}`);
});

/** What comes is read slowly. */
const copyOut = steady(0, async (client) => {
  const stream = client.query(
    to(`COPY (SELECT ${PORT}, repeat('x', 1000) FROM generate_series(1, ${COPIED.toString()})) TO STDOUT`),
  );
  const chunks: Buffer[] = [];
  for await (const chunk of stream) {
    chunks.push(chunk as Buffer);
    if (chunks.length % 16 === 0) await sleep(1);
  }
  const lines = Buffer.concat(chunks).toString().trim().split('\n');
  expectEqual('lines', lines.length, COPIED);
  return Number(lines[0]?.split('\t')[0]);
});

/** One connection listens, and hears everything that another one tells, once and in order. */
const listener = (name: string): Kind => ({
  rows: 0,
  open: async (endpoint) => {
    const [hears, tells] = await Promise.all([connected(endpoint), connected(endpoint)]);
    const heard: string[] = [];
    hears.on('notification', ({ payload = '' }) => heard.push(payload));
    await hears.query(`LISTEN ${name}`);
    let told = 0;
    return {
      round: async () => {
        const [payload, end] = [(told += 1).toString(), performance.now() + HEARD_MS];
        await tells.query(`SELECT pg_notify($1, $2)`, [name, payload]);
        while (heard.length < told && performance.now() < end) await sleep(STEP_MS);
        expectEqual('heard', [heard.length, heard.at(-1)], [told, payload]);
        return one(tells, `SELECT ${PORT}`);
      },
      close: async () => {
        await Promise.all([hears.end(), tells.end()]);
      },
    };
  },
});

/** What was set for the session, and came with the startup packet, is still set. */
const settings = steady(
  0,
  async (client) => {
    const { rows } = await client.query<Record<string, unknown>>(
      `SELECT current_setting('search_path') AS path, current_setting('application_name') AS name,
       current_setting('work_mem') AS memory, ${PORT} AS server`,
    );
    const { server, ...set } = rows[0] ?? {};
    expectEqual('settings', set, { path: 'pg_catalog, public', name: 'crossing', memory: '5MB' });
    return Number(server);
  },
  (client) => client.query('SET search_path = pg_catalog, public'),
  { application_name: 'crossing', options: '-c work_mem=5MB' },
);

/** A temporary table lives for a while. */
const temporary = steady(0, async (client) => {
  await client.query('CREATE TEMPORARY TABLE mine AS SELECT 7 AS value');
  await sleep(STEP_MS);
  expectEqual('the temporary table', await one(client, 'SELECT value FROM mine'), 7);
  const server = await one(client, `SELECT ${PORT}`);
  await client.query('DROP TABLE mine');
  await sleep(5 * STEP_MS);
  return server;
});

/** A statement is prepared by SQL, and a cursor stays open behind its transaction, for a while. */
const prepared = steady(0, async (client) => {
  await client.query(`PREPARE twice AS SELECT 2 * $1::integer`);
  await client.query('DECLARE kept CURSOR WITH HOLD FOR SELECT generate_series(1, 4)');
  await sleep(STEP_MS);
  expectEqual('executed', await one(client, 'EXECUTE twice (21)'), 42);
  expectEqual('fetched', await one(client, 'FETCH ABSOLUTE 3 FROM kept'), 3);
  const server = await one(client, `SELECT ${PORT}`);
  await client.query('DEALLOCATE twice; CLOSE kept');
  await sleep(5 * STEP_MS);
  return server;
});

/** A lock is held by the session for a while. */
const locked = steady(0, async (client) => {
  await client.query('SELECT pg_advisory_lock(42)');
  await sleep(STEP_MS);
  const server = await one(client, `SELECT ${PORT}`);
  expectEqual('unlocked', await one(client, 'SELECT pg_advisory_unlock(42)'), true);
  await sleep(5 * STEP_MS);
  return server;
});

/** Connects for one statement. */
const comesAndGoes = (name: string): Kind => ({
  rows: 1,
  open: (endpoint) =>
    Promise.resolve({
      round: async (n) => {
        const client = await connected(endpoint);
        const server = await one(client, INSERT, [name, n]);
        await client.end();
        return server;
      },
      close: () => Promise.resolve(),
    }),
});

/** Cancels what it runs. A request that comes before the server has begun is lost, as it is without a proxy. */
const cancels = steady(0, async (client) => {
  const slow = client.query('SELECT pg_sleep(0.2)').catch((error: unknown) => error);
  await sleep(STEP_MS);
  await cancelStatement(client, client);
  const { code = null } = (await slow) as { code?: string };
  if (code !== null) expectEqual('cancelled', code, '57014');
  return one(client, `SELECT ${PORT}`);
});

/** By the name that their rows have. */
export const KINDS: Readonly<Record<string, (name: string) => Kind>> = {
  pipelined,
  named,
  reads,
  portal,
  failing,
  cursor,
  copy_in: copyIn,
  copy_out: copyOut,
  listener,
  settings,
  temporary,
  prepared,
  locked,
  comes_and_goes: comesAndGoes,
  cancels,
};
/** Of these each has a client in session mode too. */
export const SESSION_KINDS = [
  'pipelined',
  'named',
  'cursor',
  'copy_in',
  'listener',
  'settings',
  'temporary',
  'prepared',
  'cancels',
];
/** Of these in statement mode: each statement of theirs is a transaction. */
export const STATEMENT_KINDS = [
  'pipelined',
  'named',
  'reads',
  'portal',
  'failing',
  'copy_in',
  'copy_out',
  'comes_and_goes',
  'cancels',
];
