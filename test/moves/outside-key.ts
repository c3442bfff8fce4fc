/** One task: tables whose key lacks the column by which their rows are spread, changed by a client all through a move that prepares them. */
import { expect } from 'vitest';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { connect } from '../../src/postgres/connection.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { until } from '../support/wait.js';

const ROWS = 20;
const TABLES = ['late', 'maybe'] as const;
export const OUTSIDE_TABLES = TABLES.map((table) => `public.${table}`);
const THINK_MS = 5;
/** Updates of both tables between two switches. */
const UPDATES_BETWEEN = 20;

/** One can have an index, of the other the column may be NULL. */
export const OUTSIDE_KEY = `
  CREATE TABLE public.late (id bigint PRIMARY KEY, tenant_id bigint NOT NULL, n bigint NOT NULL DEFAULT 0);
  CREATE TABLE public.maybe (id bigint PRIMARY KEY, tenant_id bigint, n bigint NOT NULL DEFAULT 0);
  INSERT INTO public.late SELECT n, n FROM generate_series(1, ${ROWS.toString()}) n;
  INSERT INTO public.maybe SELECT n, nullif(n, ${(ROWS + 1).toString()}) FROM generate_series(1, ${(ROWS + 1).toString()}) n;`;

/** Of both tables: what tells their rows apart, and how many of our indexes there are. Also whether anything is written down of them. */
const IDENTITIES = `
  SELECT c.relname AS "table", c.relreplident AS identity, (SELECT count(*)::int FROM pg_index i
    JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND x.relname ~ '^cutover') AS indexes
  FROM pg_class c WHERE c.oid IN ('public.late'::regclass, 'public.maybe'::regclass)
  UNION ALL SELECT 'written down ' || "table", '', 0 FROM cutover.replica_identity ORDER BY 1`;

export class OutsideKey {
  #updates = 0;
  #stopped = false;
  readonly #problems: string[] = [];
  readonly #running: Promise<void>;

  /** Updates one row of each table after the other, through the proxy. */
  constructor(endpoint: Endpoint) {
    this.#running = this.#run(endpoint).catch((error: unknown) => {
      this.#problems.push(String(error));
    });
  }

  async #run(endpoint: Endpoint): Promise<void> {
    const client = await connect(endpoint);
    while (!this.#stopped) {
      const tenant = 1 + (this.#updates % ROWS);
      for (const table of TABLES) {
        const { rowCount } = await client.query(`UPDATE public.${table} SET n = n + 1 WHERE tenant_id = $1`, [tenant]);
        if (rowCount !== 1) this.#problems.push(`${table} ${tenant.toString()}: ${String(rowCount)} rows`);
      }
      this.#updates += 1;
      await new Promise((resolve) => setTimeout(resolve, THINK_MS));
    }
    await client.end();
  }

  /** Waits until more was updated. */
  async more(): Promise<void> {
    const enough = this.#updates + UPDATES_BETWEEN;
    await until('tables are updated', () => this.#problems.length > 0 || this.#updates >= enough, 60_000);
    expect(this.#problems).toEqual([]);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  /** Ends the load: no update was refused or lost, and both sides have the same rows. */
  async expectNothingLost(sides: readonly (readonly [Cluster, readonly string[]])[]): Promise<void> {
    await this.stop();
    expect(this.#problems).toEqual([]);
    const contents = (): Promise<readonly string[]> =>
      Promise.all(sides.map(async ([cluster, databases]) => JSON.stringify(await rowsOf(cluster, databases))));
    await until('both sides have the same rows', async () => new Set(await contents()).size === 1).catch(async () => {
      const [here, there] = await contents();
      expect(there).toEqual(here);
    });
    for (const [cluster, databases] of sides)
      for (const table of TABLES) {
        const rows = (await rowsOf(cluster, databases)).filter((row) => row.table === table);
        expect(rows.reduce((sum, row) => sum + Number(row.n), 0)).toBe(this.#updates);
      }
  }
}

async function rowsOf(
  cluster: Cluster,
  databases: readonly string[],
): Promise<readonly { readonly table: string; readonly id: string; readonly n: string }[]> {
  const all = TABLES.map((table) => `SELECT '${table}' AS "table", id::text, tenant_id, n::text FROM public.${table}`);
  const rows = await Promise.all(
    databases.map((database) =>
      cluster.query<{ table: string; id: string; n: string }>(database, all.join(' UNION ALL ')),
    ),
  );
  return rows.flat().sort((a, b) => (`${a.table} ${a.id}` < `${b.table} ${b.id}` ? -1 : 1));
}

/** While the streams run, or as an operator has them. */
export async function expectIdentities(
  cluster: Cluster,
  databases: readonly string[],
  prepared: boolean,
): Promise<void> {
  const [late, maybe, indexes] = prepared ? ['i', 'f', 1] : ['d', 'd', 0];
  const expected = [
    { table: 'late', identity: late, indexes },
    { table: 'maybe', identity: maybe, indexes: 0 },
  ];
  for (const database of databases)
    expect(
      (await cluster.query(database, IDENTITIES)).filter(
        (row) => !prepared || !String(row.table).startsWith('written'),
      ),
      database,
    ).toEqual(expected);
}
