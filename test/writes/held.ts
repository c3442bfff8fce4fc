/** One task: hold what the shards have together against what one database has, and see that each row is on the shard of its key. */
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { ALIKE, HASHES, heldQuery, rowsQuery, type Held } from './schema.js';

export interface Place {
  readonly cluster: Cluster;
  readonly database: string;
}

/** Open connections to one database and to all shards of another. */
export class Comparison {
  readonly #whole: Connection;
  readonly #shards: readonly Connection[];

  private constructor(whole: Connection, shards: readonly Connection[]) {
    this.#whole = whole;
    this.#shards = shards;
  }

  static async open(whole: Place, shards: readonly Place[]): Promise<Comparison> {
    const opened = ({ cluster, database }: Place): Promise<Connection> => connect(cluster.endpoint(database));
    const connections = await Promise.all(shards.map(opened));
    if (connections.length > 1) for (const connection of connections) await connection.query(HASHES);
    return new Comparison(await opened(whole), connections);
  }

  async close(): Promise<void> {
    await Promise.all([this.#whole, ...this.#shards].map((connection) => connection.end()));
  }

  /** @returns what is different, in words; empty when nothing is */
  async differences(schema: string): Promise<readonly string[]> {
    const shards = this.#shards.length;
    const [expected, ...held] = await Promise.all([
      this.#whole.query<Held>(heldQuery(schema, null)),
      ...this.#shards.map((connection, shard) =>
        connection.query<Held>(heldQuery(schema, shards > 1 ? { shard, shards } : null)),
      ),
    ]);
    const wrong = expected.rows.filter(({ table, rows, sum }) => {
      const parts = held.flatMap(({ rows: tables }) => tables.filter((each) => each.table === table));
      if (parts.some(({ astray }) => astray > 0)) return true;
      if (ALIKE.includes(table)) return parts.some((part) => part.rows !== rows || part.sum !== sum);
      const total = parts.reduce((all, part) => all + BigInt(part.sum), 0n);
      return parts.reduce((all, part) => all + part.rows, 0) !== rows || total.toString() !== sum;
    });
    return Promise.all(wrong.map(async ({ table }) => this.#shown(schema, table)));
  }

  /** Rows that only one of them has. */
  async #shown(schema: string, table: string): Promise<string> {
    const of = async (connection: Connection): Promise<readonly string[]> =>
      (await connection.query<{ row: string }>(rowsQuery(schema, table))).rows.map(({ row }) => row);
    const whole = await of(this.#whole);
    const parts = await Promise.all(this.#shards.map(of));
    const count = (rows: readonly string[], row: string): number => rows.filter((other) => other === row).length;
    const all = [...new Set([...whole, ...parts.flat()])];
    const lines = all
      .map((row) => `${row}: ${count(whole, row).toString()} / ${parts.map((rows) => count(rows, row)).join(' + ')}`)
      .filter((line) => !/: (\d+) \/ (\1|\1 \+ 0|0 \+ \1|1 \+ 1)$/.test(line));
    return `${table}, in one database / on each shard:\n  ${lines.slice(0, 20).join('\n  ')}`;
  }
}
