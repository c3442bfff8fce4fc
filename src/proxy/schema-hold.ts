/**
 * One task: for one statement or one transaction that changes the schema of all shards, see to it that the coordinator comes along: readers
 * wait meanwhile, and what would leave rows where nobody looks for them is not committed.
 */
import { CutoverError, messageOf } from '../errors/errors.js';
import { quoteIdentifier, withConnection } from '../postgres/connection.js';
import type { CoordinatorChange } from '../sharding/coordinator-change.js';
import { PLACED_TABLES, placedTablesOf, placementProblems } from '../sharding/placed-tables.js';
import { BACKEND } from '../wire/codes.js';
import { query } from '../wire/frontend.js';
import { REPLY } from './reply-queue.js';
import type { ShardPart } from './shard-part.js';
import type { ShardRouters } from './shard-routers.js';

/** Of a DataRow: its type, length, count of columns and the length of the one it has. */
const BEFORE_VALUE_BYTES = 11;

export class SchemaHold {
  readonly #routers: ShardRouters;
  readonly #database: string;
  readonly #onOverdue: () => void;
  #begun: Promise<CoordinatorChange | null> | null = null;
  #change: CoordinatorChange | null = null;

  /** @param onOverdue readers have waited for too long: what still runs need not go on */
  constructor(routers: ShardRouters, database: string, onOverdue: () => void) {
    this.#routers = routers;
    this.#database = database;
    this.#onOverdue = onOverdue;
  }

  /** Why it is not committed any more; null: it may be. */
  get overdue(): CutoverError | null {
    return this.#change?.overdue ?? null;
  }

  /** To be called before the first shard is changed; may be called again. @throws CutoverError `shards_not_committed` */
  async begin(): Promise<void> {
    this.#begun ??= this.#routers.changeBegins(this.#database, this.#onOverdue);
    try {
      this.#change = await this.#begun;
    } catch (error) {
      // A transaction that goes back to a savepoint may try again.
      this.#begun = null;
      throw error;
    }
  }

  /**
   * The change is complete and about to be committed.
   *
   * @param parts the sessions in which it was made, of all shards
   * @throws CutoverError `shards_not_committed`: it must not be committed
   */
  async ready(parts: readonly ShardPart[]): Promise<void> {
    const change = await this.#begun;
    if (!change) return;
    const problem = await this.#problemOf(parts);
    if (problem !== null) throw new CutoverError('shards_not_committed', { problem });
    await change.close();
  }

  /** However it has ended; may be called again, and by two at once. @returns why the coordinator is not in step; null: it is */
  async end(): Promise<string | null> {
    const change = await this.#begun?.catch(() => null);
    return (await change?.end()) ?? null;
  }

  /** Why rows would not be found any more; null: they are. */
  async #problemOf(parts: readonly ShardPart[]): Promise<string | null> {
    const [first] = parts;
    if (first === undefined) return null;
    const { scheme, endpoint } = this.#routers.placesOf(this.#database);
    const before = await withConnection(endpoint, async (connection) => {
      const { rows } = await connection.query<{ tables: string }>(PLACED_TABLES);
      return placedTablesOf(rows[0]?.tables ?? '');
    }).catch((error: unknown) => {
      throw new CutoverError('shards_not_committed', { problem: messageOf(error) }, { cause: error });
    });
    const after = placedTablesOf(await told(first, PLACED_TABLES));
    for (const { table, reason, always } of placementProblems(scheme, before, after)) {
      const name = `${quoteIdentifier(table.schema)}.${quoteIdentifier(table.name)}`;
      if (always || (await anyHas(parts, name))) return reason;
    }
    return null;
  }
}

async function anyHas(parts: readonly ShardPart[], table: string): Promise<boolean> {
  for (const part of parts) if ((await told(part, `SELECT EXISTS (SELECT FROM ${table})`)) === 't') return true;
  return false;
}

/** The one value that a statement answers, in ASCII, in the session's open transaction; the session stays what it is. */
async function told(part: ShardPart, sql: string): Promise<string> {
  const pieces: Buffer[] = [];
  const { tag } = part;
  const apart = `SAVEPOINT cutover_look; SET LOCAL search_path TO pg_catalog; SET LOCAL row_security TO off; ${sql};
    ROLLBACK TO SAVEPOINT cutover_look; RELEASE SAVEPOINT cutover_look`;
  await part.run({ bytes: query(apart), replies: [REPLY.query] }, (type, bytes) => {
    if (type === BACKEND.dataRow) pieces.push(Buffer.from(bytes));
  });
  // What the client is told is the tag of its own statement.
  part.tag = tag;
  return Buffer.concat(pieces).subarray(BEFORE_VALUE_BYTES).toString('latin1');
}
