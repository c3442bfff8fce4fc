/**
 * One task: note on a subscription how the engine left it, so that a later look tells whether somebody has altered it by hand.
 *
 * The note is a comment on the subscription and names the transaction that wrote its row last (`xmin`: PostgreSQL documentation,
 * 5.5; freezing keeps it). Neither a comment nor REFRESH PUBLICATION writes that row; ALTER SUBSCRIPTION does, and so does an
 * apply worker that has skipped a transaction (`subskiplsn`). A role that may not read `xmin` leaves no note.
 */
import { quoteIdentifier, quoteLiteral, type Connection } from './connection.js';

/** Whether this role may read `xmin`: not by default, only whole columns are granted to everybody (53.54). */
export const STAMP_READABLE = `has_column_privilege('pg_subscription', 'xmin', 'SELECT')`;

const PREFIX = 'as cutover left it in transaction ';

/** The transaction that the comment on the subscription `s` names, as text; null without a comment of the engine. */
export const STAMP_OF_S = `substring(obj_description(s.oid, 'pg_subscription') FROM '^${PREFIX}([0-9]+)$')`;

/** Whether the stamp goes on: what is known before the statement must outlive it, and plain SQL has no variables. */
const AS_LEFT = 'cutover.as_left';

/**
 * `statement`, which makes or alters the subscription, together with its note: one message, one transaction, no round trip more. A
 * subscription that somebody else has altered before keeps the note that gives it away.
 */
export function stamped(name: string, statement: string): string {
  const own = `s.subname = ${quoteLiteral(name)} AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`;
  // Inside the branch, because a statement that names xmin is refused to whoever may not read it, whether it reads it or not.
  const before = `BEGIN
    IF ${STAMP_READABLE} THEN
      PERFORM set_config('${AS_LEFT}', (NOT EXISTS (
        SELECT FROM pg_subscription s WHERE ${own} AND s.xmin::text IS DISTINCT FROM ${STAMP_OF_S}))::text, true);
    END IF;
  END`;
  const after = `BEGIN
    IF current_setting('${AS_LEFT}', true) = 'true' THEN
      EXECUTE (SELECT format('COMMENT ON SUBSCRIPTION %I IS %L', s.subname, '${PREFIX}' || s.xmin) FROM pg_subscription s WHERE ${own});
    END IF;
  END`;
  return `DO ${quoteLiteral(before)}; ${statement}; DO ${quoteLiteral(after)}`;
}

/** Takes the row that transaction `xmin` wrote as the engine's own. May be called again. */
export async function stamp(subscriber: Connection, name: string, xmin: string): Promise<void> {
  await subscriber.query(`COMMENT ON SUBSCRIPTION ${quoteIdentifier(name)} IS ${quoteLiteral(PREFIX + xmin)}`);
}
