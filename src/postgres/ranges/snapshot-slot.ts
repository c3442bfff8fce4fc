/**
 * One task: make the slot of a stream together with the snapshot it begins at, and keep both for one attempt.
 *
 * A slot made over the replication protocol exports the snapshot of the moment from which it has every change (PostgreSQL documentation,
 * 54.4 and 47.2.5): rows read by that snapshot, and the stream behind it, are the whole table, once. The snapshot lives as long as the
 * connection says nothing more. An advisory lock of the same session keeps every other attempt from touching the slot: whoever wants it has
 * to end this session first.
 */
import { CutoverError } from '../../errors/errors.js';
import { quoteIdentifier, quoteLiteral, type Connection } from '../connection.js';
import { ask, endCopySessions, openCopySession } from '../copy-session.js';
import type { Endpoint } from '../endpoint.js';

/** Any number no other program takes: the first half of the advisory lock, the stream is the other. */
const SLOT_LOCK = 728_319_045;
/** A slot begins when every transaction under way has ended; beyond it the attempt is given up, and another one is made. */
const CREATE_DEADLINE = { query_timeout: 10 * 60_000 };

export class SnapshotSlot {
  readonly #stream: string;
  readonly #connection: Connection;
  readonly #lost = new AbortController();
  #snapshot = '';
  #begin = '';

  private constructor(stream: string, connection: Connection) {
    this.#stream = stream;
    this.#connection = connection;
    const lost = (): void => {
      this.#lost.abort(interrupted(stream, 'the connection that holds its snapshot has ended'));
    };
    connection.on('error', lost);
    connection.on('end', lost);
  }

  /**
   * Takes the slot of a stream, whether there is one or not, from every other attempt; changes nothing else.
   *
   * @throws CutoverError `copy_interrupted` when another attempt takes it at this moment
   */
  static async open(publisher: Endpoint, stream: string): Promise<SnapshotSlot> {
    const connection = await openCopySession(publisher, stream, { replication: true });
    try {
      await endCopySessions(connection, [stream]);
      const { rows } = await ask<{ taken: boolean }>(
        connection,
        `SELECT pg_try_advisory_lock(${SLOT_LOCK.toString()}, hashtext(${quoteLiteral(stream)})) AS taken`,
      );
      if (rows[0]?.taken !== true) throw interrupted(stream, 'another attempt has its slot');
      return new SnapshotSlot(stream, connection);
    } catch (error) {
      await connection.end().catch(() => undefined);
      throw error;
    }
  }

  /** Aborted when the session is over, and the snapshot with it. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** By which the rows are read. */
  get snapshot(): string {
    return this.#snapshot;
  }

  /** Removes a slot of an earlier attempt and makes a new one. */
  async create(): Promise<void> {
    const name = quoteLiteral(this.#stream);
    await ask(
      this.#connection,
      `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = ${name}`,
    );
    const { rows } = await this.#connection.query<{ consistent_point: string; snapshot_name: string }>({
      text: `CREATE_REPLICATION_SLOT ${quoteIdentifier(this.#stream)} LOGICAL pgoutput EXPORT_SNAPSHOT`,
      ...CREATE_DEADLINE,
    });
    const [made] = rows;
    if (!made) throw interrupted(this.#stream, 'its slot was not made');
    this.#snapshot = made.snapshot_name;
    this.#begin = made.consistent_point;
  }

  /**
   * Ends the snapshot. The slot must be the one that was made with it, and nobody must have read from it.
   *
   * @throws CutoverError `copy_interrupted`
   */
  async expectOwn(): Promise<void> {
    const { rows } = await ask(
      this.#connection,
      `SELECT FROM pg_replication_slots WHERE slot_name = ${quoteLiteral(this.#stream)} AND NOT active
         AND confirmed_flush_lsn = ${quoteLiteral(this.#begin)}::pg_lsn AND coalesce(wal_status <> 'lost', true)`,
    ).catch(() => ({ rows: [] }));
    if (rows.length === 0) throw interrupted(this.#stream, 'its slot is not the one that the rows were read with');
  }

  async close(): Promise<void> {
    await this.#connection.end().catch(() => undefined);
  }
}

export function interrupted(stream: string, problem: string, cause?: unknown): CutoverError {
  return new CutoverError('copy_interrupted', { stream, problem }, cause === undefined ? undefined : { cause });
}
