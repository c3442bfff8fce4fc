/**
 * One task: bring the rows of one range from one server to the other, once.
 *
 * Text and settings are those of PostgreSQL's own table synchronisation. Both ends wait for each other: no more than a few chunks of rows are in
 * memory, however slow the destination is.
 */
import { pipeline } from 'node:stream/promises';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { quoteIdentifier, quoteLiteral, type Connection } from '../connection.js';
import { ask, openCopySession } from '../copy-session.js';
import type { Endpoint } from '../endpoint.js';
import { qualified } from '../fence.js';
import type { PageRange, RangedTable } from './cut.js';
import { claimRange, noteRange, type RangeKey, type Run } from './ledger.js';
import { interrupted } from './snapshot-slot.js';

/** Both ends of the copies of one worker. */
export interface Ends {
  readonly reader: Connection;
  readonly writer: Connection;
}

export interface Transfer {
  readonly run: Run;
  readonly stream: string;
  readonly table: RangedTable;
  readonly range: PageRange;
  /** by which the rows are read */
  readonly snapshot: string;
  readonly binary: boolean;
  /** called with each chunk; waits as long as the copy shall wait */
  readonly onBytes: (bytes: number) => Promise<void>;
  readonly stopped: AbortSignal;
}

/**
 * Connects both ends for a stream.
 *
 * The writer writes as a subscription does: triggers and rules of the application do not fire (PostgreSQL documentation, 29.9).
 */
export async function openEnds(publisher: Endpoint, subscriber: Endpoint, stream: string): Promise<Ends> {
  const writer = await openCopySession(subscriber, stream);
  try {
    const { rows } = await ask<{ encoding: string }>(
      writer,
      `SELECT getdatabaseencoding() AS encoding, set_config('session_replication_role', 'replica', false)`,
    );
    const reader = await openCopySession(publisher, stream);
    const settings = `SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 3;
      SET client_encoding = ${quoteLiteral(rows[0]?.encoding ?? 'UTF8')}`;
    try {
      await ask(writer, settings);
      // Else a policy of the table would silently leave rows out.
      await ask(reader, `${settings}; SET row_security = off`);
      return { reader, writer };
    } catch (error) {
      await reader.end().catch(() => undefined);
      throw error;
    }
  } catch (error) {
    await writer.end().catch(() => undefined);
    throw error;
  }
}

/** A connection in the middle of a copy is cut off: its server rolls back. */
export async function closeEnds({ reader, writer }: Ends): Promise<void> {
  await Promise.allSettled([reader.end(), writer.end()]);
}

/**
 * One transaction at each end. After an error the connections are of no use any more, and whether the range has come is told by trying again.
 *
 * @returns the rows; null when the range had come already
 * @throws CutoverError `copy_interrupted` when the snapshot, the table or the attempt is not what it was
 */
export async function transferRange(ends: Ends, transfer: Transfer): Promise<number | null> {
  const { reader, writer } = ends;
  const { run, stream, table, range, snapshot } = transfer;
  const key: RangeKey = { stream, schema: table.schema, table: table.table, firstPage: range.firstPage };
  await ask(writer, 'BEGIN');
  if (!(await claimRange(writer, run, key))) {
    await ask(writer, 'ROLLBACK');
    return null;
  }
  await ask(reader, 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  await ask(reader, `SET TRANSACTION SNAPSHOT ${quoteLiteral(snapshot)}`).catch((error: unknown) => {
    // Told by the server, not by the way to it.
    if ((error as { severity?: string }).severity === 'ERROR')
      throw interrupted(stream, 'the snapshot that its rows are read by is gone', error);
    throw error;
  });
  await expectSameRows(reader, stream, table);
  const { rows, bytes } = await pass(ends, transfer);
  await noteRange(writer, key, rows, bytes);
  await ask(writer, 'COMMIT');
  await ask(reader, 'COMMIT');
  return rows;
}

/** Under a lock that TRUNCATE, VACUUM FULL and ALTER TABLE wait for: none of them has laid the rows elsewhere since before the snapshot. */
async function expectSameRows(reader: Connection, stream: string, table: RangedTable): Promise<void> {
  const name = qualified(table);
  await ask(reader, `LOCK TABLE ONLY ${name} IN ACCESS SHARE MODE`);
  const { rows } = await ask<{ filenode: string | null }>(
    reader,
    `SELECT pg_relation_filenode(${quoteLiteral(name)}::regclass)::text AS filenode`,
  );
  if (rows[0]?.filenode !== table.filenode)
    throw interrupted(stream, `table ${name} was rewritten while it was copied`);
}

async function pass(
  { reader, writer }: Ends,
  { table, range, binary, onBytes, stopped }: Transfer,
): Promise<{ readonly rows: number; readonly bytes: number }> {
  const columns = table.columns.map(quoteIdentifier).join(', ');
  const format = binary ? ' WITH (FORMAT binary)' : '';
  const source = reader.query(
    copyTo(`COPY (SELECT ${columns} FROM ONLY ${qualified(table)} WHERE ${within(table, range)}) TO STDOUT${format}`),
  );
  const destination = writer.query(copyFrom(`COPY ${qualified(table)} (${columns}) FROM STDIN${format}`));
  // What a connection says after the copy has failed is said to nobody.
  for (const stream of [source, destination]) stream.on('error', () => undefined);
  let bytes = 0;
  const counted = async function* (chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      bytes += chunk.length;
      await onBytes(chunk.length);
      yield chunk;
    }
  };
  // A server that says nothing would keep a copy that is given up from ending.
  const cut = (): void => void closeEnds({ reader, writer });
  stopped.addEventListener('abort', cut, { once: true });
  try {
    await pipeline(source, counted, destination, { signal: stopped });
  } finally {
    stopped.removeEventListener('abort', cut);
  }
  return { rows: destination.rowCount, bytes };
}

function within({ where }: RangedTable, { firstPage, endPage }: PageRange): string {
  return [
    `ctid >= '(${firstPage.toString()},0)'`,
    ...(endPage === null ? [] : [`ctid < '(${endPage.toString()},0)'`]),
    ...(where === undefined ? [] : [`(${where})`]),
  ].join(' AND ');
}
