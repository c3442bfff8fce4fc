/**
 * One task: with `cutover_session_state = "close"`, sessions that keep something of the server they are at are ended at each switch, under
 * load, and read 57P01; whatever they were told is there, and nobody else notices.
 */
import pg from 'pg';
import { expect, onTestFinished, test } from 'vitest';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { until } from '../support/wait.js';
import { CROSSING_TABLE } from './crossing-clients.js';
import { Moving } from './moving.js';

const MINE = {
  temporary: 'CREATE TEMPORARY TABLE mine AS SELECT 7 AS value',
  locked: 'SELECT pg_advisory_lock(42)',
  prepared: 'PREPARE mine AS SELECT 7',
  held: 'DECLARE mine CURSOR WITH HOLD FOR SELECT 7',
} as const;
const DRAIN_TIMEOUT_MS = 10_000;

/** A session that is never without what it keeps, and comes back when it was ended. */
class Keeper {
  readonly name: string;
  /** what it was told when it was ended, each time */
  readonly told: string[] = [];
  readonly problems: unknown[] = [];
  rows = 0;
  server = 0;
  readonly #endpoint: Endpoint;
  readonly #keep: string;
  #over = false;
  readonly #running: Promise<void>;

  constructor(name: keyof typeof MINE, endpoint: Endpoint) {
    this.name = name;
    this.#endpoint = endpoint;
    this.#keep = MINE[name];
    this.#running = this.#run().catch((error: unknown) => {
      this.problems.push(error);
    });
  }

  async end(): Promise<void> {
    this.#over = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#over) await this.#session();
  }

  async #session(): Promise<void> {
    const client = new pg.Client(this.#endpoint);
    const ended: string[] = [];
    client.on('error', (error) => ended.push((error as { code?: string }).code ?? error.message));
    await client.connect();
    try {
      await client.query(this.#keep);
      while (!this.#over) {
        const { rows } = await client.query<{ server: number }>(
          `INSERT INTO crossing VALUES ('${this.name}', ${this.rows.toString()}) RETURNING server`,
        );
        this.server = rows[0]?.server ?? 0;
        this.rows += 1;
      }
      await client.end();
    } catch (error) {
      this.told.push(ended[0] ?? (error as { code?: string }).code ?? String(error));
    }
  }
}

test('sessions that keep something are ended at each switch and lose nothing', { timeout: 240_000 }, async () => {
  const general = `cutover_session_state = "close"\ncutover_drain_timeout = ${DRAIN_TIMEOUT_MS.toString()}`;
  const moving = await Moving.start({ source: 17, destination: 18, general, schema: CROSSING_TABLE });
  onTestFinished(() => moving.stop());
  const { source, destination } = moving.system;
  await moving.load();
  const keepers = (Object.keys(MINE) as (keyof typeof MINE)[]).map(
    (name) => new Keeper(name, moving.system.endpoint()),
  );
  onTestFinished(() => Promise.all(keepers.map((keeper) => keeper.end())).then(() => undefined));
  const allAt = async (port: number): Promise<void> => {
    for (const keeper of keepers)
      await until(
        `${keeper.name} is at ${port.toString()}`,
        () => keeper.problems.length > 0 || keeper.server === port,
      );
  };

  await allAt(source.port);
  const turns: readonly [turn: () => Promise<unknown>, serving: typeof source][] = [
    [() => moving.reshard(), destination],
    [() => moving.rollback(), source],
    [() => moving.cutover(), destination],
  ];
  for (const [turn, serving] of turns) {
    await moving.writes();
    await turn();
    await allAt(serving.port);
  }

  await Promise.all(keepers.map((keeper) => keeper.end()));
  for (const { name, told, problems } of keepers) {
    expect(problems, name).toEqual([]);
    expect(told, name).toEqual(['57P01', '57P01', '57P01']);
  }
  await moving.expectNothingLost();
  const found = await destination.query<{ kind: string; rows: number; last: number }>(
    'app',
    'SELECT kind, count(*)::integer AS rows, max(n) AS last FROM crossing GROUP BY kind',
  );
  const byKind = (rows: readonly { kind: string }[]): unknown =>
    [...rows].sort((one, other) => one.kind.localeCompare(other.kind));
  expect(byKind(found)).toEqual(byKind(keepers.map(({ name, rows }) => ({ kind: name, rows, last: rows - 1 }))));
});
