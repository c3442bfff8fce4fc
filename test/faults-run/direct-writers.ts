/** One task: a client that bypasses the proxy and writes straight to one server, whether that serves or not. */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { Place } from '../../src/dev/embedded-postgres.js';
import { sqlstateOf } from '../../src/dev/ledger/session.js';
import { messageOf } from '../../src/errors/errors.js';

/** `mark` and not `token`: the ledger counts every token of the database as its own. */
export const DIRECT_TABLE = `CREATE TABLE public.direct_writes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mark uuid NOT NULL, side text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp())`;

/** How many of the ledger's extra tables are made. */
export const EXTRA_TABLES = 3;

const THINK_MS = 20;
const RECONNECT_MS = 100;
const CONNECT_TIMEOUT_MS = 2_000;
const FENCE = 'CUT01';

export class DirectWriter {
  readonly side: 'source' | 'destination';
  readonly acknowledged: string[] = [];
  /** writes whose answer was lost: there or not */
  readonly unknown = new Set<string>();
  /** refusals by the fence so far */
  refused = 0;
  /** what else a server that answers said; nothing else is expected */
  readonly odd: string[] = [];
  /** of its side; it writes what belongs there */
  readonly shard: number;
  /** what its rows bear: its side, and of further shards the number */
  readonly name: string;
  readonly #place: Place;
  readonly #owns: (mark: string) => boolean;
  #client: pg.Client | null = null;
  #stopping = false;
  #running: Promise<void> = Promise.resolve();

  constructor(
    side: 'source' | 'destination',
    name: string,
    place: Place,
    shard: number,
    owns: (mark: string) => boolean,
  ) {
    this.side = side;
    this.shard = shard;
    this.name = name;
    this.#place = place;
    this.#owns = owns;
  }

  start(): void {
    this.#stopping = false;
    this.#running = this.#run();
  }

  /** Resolves when the last write has its answer; the servers must be up. May be started again. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running;
    await this.#client?.end().catch(() => undefined);
    this.#client = null;
  }

  async #run(): Promise<void> {
    while (!this.#stopping) await delay((await this.#write()) ? THINK_MS : RECONNECT_MS);
  }

  /** @returns false when the server could not be reached */
  async #write(): Promise<boolean> {
    const mark = this.#ownMark();
    let sent = false;
    try {
      this.#client ??= await this.#connect();
      sent = true;
      await this.#client.query('INSERT INTO public.direct_writes (mark, side) VALUES ($1, $2)', [mark, this.name]);
      this.acknowledged.push(mark);
      return true;
    } catch (error) {
      const sqlstate = sqlstateOf(error);
      if (sqlstate === FENCE) {
        this.refused++;
        return true;
      }
      if (sent) this.unknown.add(mark);
      // 57P: the server ends or starts; without a code the connection broke (PostgreSQL documentation, appendix A).
      if (sqlstate !== undefined && !sqlstate.startsWith('57P')) this.odd.push(`${sqlstate}: ${messageOf(error)}`);
      this.#client?.end().catch(() => undefined);
      this.#client = null;
      return false;
    }
  }

  #ownMark(): string {
    for (;;) {
      const mark = randomUUID();
      if (this.#owns(mark)) return mark;
    }
  }

  async #connect(): Promise<pg.Client> {
    const client = new pg.Client({
      ...this.#place.cluster.endpoint(this.#place.database),
      application_name: 'direct writer',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }
}
