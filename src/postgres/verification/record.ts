/** One task: keep the results of comparisons in the record, where a cutover that requires one looks for it. */
import type { Heading } from '../../cutover/contract.js';
import type { VerifyResult } from '../../cutover/verification.js';
import type { Connection } from '../connection.js';

/** Part of the record (record-schema.ts); made again by each comparison, for a record of an earlier version. */
export const VERIFICATION_DDL = `
CREATE TABLE IF NOT EXISTS cutover.verification (
  migration text NOT NULL,
  started_at timestamptz NOT NULL,
  finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- the epoch of the last move when it was made
  epoch bigint NOT NULL,
  -- reverse: the side that was the source is compared with the one that serves now
  heading text NOT NULL CHECK (heading IN ('forward', 'reverse')),
  tables integer NOT NULL,
  rows bigint NOT NULL,
  bytes bigint NOT NULL,
  differences bigint NOT NULL,
  undecided bigint NOT NULL,
  samples jsonb NOT NULL,
  PRIMARY KEY (migration, started_at)
);
`;

/** May be called again: the first result of a comparison stands. */
export async function noteVerification(connection: Connection, migration: string, result: VerifyResult): Promise<void> {
  await connection.query(VERIFICATION_DDL);
  await connection.query(
    `INSERT INTO cutover.verification
       (migration, started_at, epoch, heading, tables, rows, bytes, differences, undecided, samples)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`,
    [
      migration,
      result.startedAt,
      result.epoch,
      result.heading,
      result.tables,
      result.rows,
      result.bytes,
      result.differences,
      result.undecided,
      JSON.stringify(result.samples),
    ],
  );
}

export interface KnownVerification {
  readonly differences: number;
  readonly undecided: number;
  readonly epoch: number;
  readonly ageMs: number;
}

/** The latest result for this heading, by the server's clock; null when there is none. */
export async function latestVerification(
  connection: Connection,
  migration: string,
  heading: Heading,
): Promise<KnownVerification | null> {
  const present = await connection.query<{ present: boolean }>(
    `SELECT to_regclass('cutover.verification') IS NOT NULL AS present`,
  );
  if (present.rows[0]?.present !== true) return null;
  const { rows } = await connection.query<KnownVerification>(
    `SELECT differences::float8, undecided::float8, epoch::float8,
       (extract(epoch FROM clock_timestamp() - finished_at) * 1000)::float8 AS "ageMs"
     FROM cutover.verification WHERE migration = $1 AND heading = $2 ORDER BY finished_at DESC LIMIT 1`,
    [migration, heading],
  );
  return rows[0] ?? null;
}
