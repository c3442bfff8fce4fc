/**
 * One task: clients of every kind go through a cutover, a rollback and a cutover without an error: what each was told is there, once.
 *
 * In the pause itself one connects, one leaves and one cancels, in transaction mode and in session mode. Short reads share servers. Statement mode
 * has those that need no transaction.
 */
import { appendFileSync } from 'node:fs';
import pg from 'pg';
import { expect, onTestFinished, test } from 'vitest';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { cancelStatement } from '../support/cancel.js';
import { until } from '../support/wait.js';
import { Crossing, CROSSING_TABLE, KINDS, SESSION_KINDS, STATEMENT_KINDS } from './crossing-clients.js';
import { Moving } from './moving.js';

/** The same role in session mode, in statement mode, and with a pool to itself, where nothing changes the schema: reads are not shared for a while behind that. */
const FURTHER_USERS = [
  ['keeper', 'session'],
  ['single', 'statement'],
  ['reader', 'transaction'],
] as const;

function furtherUsers(database: string, password: string): string {
  const row = ([name, mode]: (typeof FURTHER_USERS)[number]): string => `
[[users]]
name = "${name}"
database = "${database}"
password = "app secret"
server_user = "postgres"
server_password = "${password}"
pooler_mode = "${mode}"
`;
  return FURTHER_USERS.map(row).join('');
}

function crossings(endpoint: Endpoint): readonly Crossing[] {
  const start = (kind: string, name: string, to: Endpoint): Crossing[] => {
    const make = KINDS[kind];
    return make === undefined ? [] : [new Crossing(name, make(name), to)];
  };
  return [
    ...Object.keys(KINDS).flatMap((kind) => start(kind, kind, endpoint)),
    ...start('reads', 'shared_reads', { ...endpoint, user: 'reader' }),
    ...SESSION_KINDS.flatMap((kind) => start(kind, `${kind}_in_session_mode`, { ...endpoint, user: 'keeper' })),
    ...STATEMENT_KINDS.flatMap((kind) => start(kind, `${kind}_in_statement_mode`, { ...endpoint, user: 'single' })),
  ];
}

/** What clients do while they are held: what became of each is known when the pause is over. */
class InThePause {
  readonly #moving: Moving;
  readonly #answers: Promise<number>[] = [];

  constructor(moving: Moving) {
    this.#moving = moving;
  }

  /** Returns when all of it stands at the closed gate, or has been taken back there. */
  async begin(): Promise<void> {
    // One after the other: what is counted is who waits.
    await this.#inTurn('app');
    await this.#inTurn('keeper');
  }

  async #inTurn(user: string): Promise<void> {
    const clients = [this.#client(user), this.#client(user), this.#client(user)] as const;
    const [cancels, leaves, comes] = await Promise.all(clients);
    const cancelled = cancels.query('SELECT 1').catch((error: unknown) => error);
    void leaves.query('SELECT 2').catch(() => undefined);
    const answered = comes.query<{ server: number }>(`SELECT current_setting('port')::integer AS server`);
    await this.#held(user, 3);
    await cancelStatement(this.#moving.system.address, cancels);
    expect(await cancelled).toMatchObject({ code: '57014' });
    (leaves as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    await this.#held(user, 1);
    // An attempt that is aborted is followed by another one.
    this.#answers.push(answered.then(({ rows }) => rows[0]?.server ?? 0).finally(() => comes.end()));
    await cancels.end();
  }

  /** @returns the ports of the servers by which those that stayed were answered, of the last attempt */
  async end(): Promise<readonly number[]> {
    return (await Promise.all(this.#answers.splice(0))).slice(-2);
  }

  async #client(user: string): Promise<pg.Client> {
    const client = new pg.Client({ ...this.#moving.system.endpoint(), user, application_name: 'in the pause' });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  async #held(user: string, count: number): Promise<void> {
    await until(`${count.toString()} of them wait`, async () => {
      const rows = await this.#moving.system.admin('SHOW CLIENTS');
      const waits = rows.filter((row) => row.application_name === 'in the pause' && row.state === 'waiting');
      return waits.filter((row) => row.user === user).length === count;
    });
  }
}

test('clients of every kind cross a cutover, a rollback and a cutover', { timeout: 240_000 }, async () => {
  // What is done in the pause is part of it, on a machine that may be busy.
  const general = 'cutover_drain_timeout = 5000\ncutover_timeout = 60000\ncutover_lease = 10000\npipelining = "auto"';
  const moving = await Moving.start({ source: 17, destination: 18, general, schema: CROSSING_TABLE });
  onTestFinished(() => moving.stop());
  const { source, destination } = moving.system;
  appendFileSync(
    moving.system.files.users,
    furtherUsers('prod', source.password) + furtherUsers('prod_new', destination.password),
  );
  await moving.system.admin('RELOAD');
  const clients = crossings(moving.system.endpoint());
  onTestFinished(() => Promise.all(clients.map((client) => client.end())).then(() => undefined));
  const allAt = async (port: number): Promise<void> => {
    for (const client of clients) {
      await until(`${client.name} is at ${port.toString()}`, () => client.errors.length > 0 || client.server === port);
      expect(client.errors, client.name).toEqual([]);
    }
  };

  await allAt(source.port);
  const pause = new InThePause(moving);
  moving.system.onStep = async (_, step) => {
    if (step === 'awaitParity') await pause.begin();
  };
  const turns: readonly [turn: () => Promise<unknown>, serving: typeof source][] = [
    [() => moving.reshard(), destination],
    [() => moving.rollback(), source],
    [() => moving.cutover(), destination],
  ];
  for (const [turn, serving] of turns) {
    await turn();
    expect(await pause.end()).toEqual([serving.port, serving.port]);
    await allAt(serving.port);
  }
  expect(moving.system.served?.proxy.stats().some(({ sharedReads }) => sharedReads > 0)).toBe(true);

  await Promise.all(clients.map((client) => client.end()));
  const ports = [source, destination, source, destination].map(({ port }) => port);
  for (const client of clients) {
    expect(client.errors, client.name).toEqual([]);
    expect(client.servers, client.name).toEqual(ports);
  }
  const written = Object.fromEntries(clients.filter(({ rows }) => rows > 0).map(({ name, rows }) => [name, rows]));
  for (const side of [source, destination]) {
    const counted = `SELECT kind, count(*)::integer AS rows, max(n) AS last FROM crossing GROUP BY kind`;
    const equal = async (): Promise<boolean> => {
      const rows = await side.query<{ kind: string; rows: number; last: number }>('app', counted);
      const found = Object.fromEntries(rows.map(({ kind, rows: count }) => [kind, count]));
      return JSON.stringify(Object.entries(found).sort()) === JSON.stringify(Object.entries(written).sort());
    };
    await until(`each row that was acknowledged is at ${side.port.toString()} once`, equal);
  }
});
