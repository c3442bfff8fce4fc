/**
 * One task: end a transaction that several databases have a part in on all of them or on none, whoever dies in between.
 *
 * Two-phase commit (PostgreSQL documentation, 66.4 and PREPARE TRANSACTION) whose decision is a row on the first database, written by the
 * transaction of its own part: there is no moment at which that part is committed and the decision is not. Whoever dies leaves prepared
 * transactions behind, which hold their locks; `resolveLeftBehind` ends them by that row. Where there is none it writes `aborted` in its
 * place, and a commit that comes late fails on it.
 */
import { randomUUID } from 'node:crypto';
import { CutoverError, messageOf } from '../errors/errors.js';
import { quoteLiteral, type Connection } from './connection.js';

/**
 * On the first database. A row belongs to the role that wrote it, and so do the prepared transactions of that name: nobody decides for
 * others. `written` tells when no transaction can still be running that would have to find a row `aborted`.
 */
export const TWO_PHASE_DDL = `
-- Several proxies may make it at once.
SELECT pg_advisory_xact_lock(hashtext('cutover.shards'));
CREATE SCHEMA IF NOT EXISTS cutover_shards;
GRANT USAGE ON SCHEMA cutover_shards TO PUBLIC;
CREATE TABLE IF NOT EXISTS cutover_shards.decision (
  role name NOT NULL DEFAULT session_user,
  transaction text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('committed', 'aborted')),
  written xid8 NOT NULL DEFAULT pg_current_xact_id(),
  PRIMARY KEY (role, transaction)
);

-- Part of the transaction whose commit decides. A duplicate key: it was aborted meanwhile.
CREATE OR REPLACE FUNCTION cutover_shards.commit(p_transaction text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $function$
  INSERT INTO cutover_shards.decision (transaction, outcome) VALUES (p_transaction, 'committed')
$function$;

-- Waits for a commit under way, and tells what was decided.
CREATE OR REPLACE FUNCTION cutover_shards.abort(p_transaction text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
BEGIN
  INSERT INTO cutover_shards.decision (transaction, outcome) VALUES (p_transaction, 'aborted') ON CONFLICT DO NOTHING;
  RETURN (SELECT outcome FROM cutover_shards.decision WHERE role = session_user AND transaction = p_transaction);
END
$function$;

-- What may be forgotten once no part of it is left prepared.
CREATE OR REPLACE FUNCTION cutover_shards.kept() RETURNS SETOF text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $function$
  SELECT transaction FROM cutover_shards.decision WHERE role = session_user AND outcome = 'committed' LIMIT 1000
$function$;

-- Once no part of it is left prepared.
CREATE OR REPLACE FUNCTION cutover_shards.forget(p_transaction text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $function$
  DELETE FROM cutover_shards.decision WHERE role = session_user AND transaction = p_transaction AND outcome = 'committed';
  DELETE FROM cutover_shards.decision WHERE role = session_user AND outcome = 'aborted'
    AND written < pg_snapshot_xmin(pg_current_snapshot());
$function$;

-- Also where functions are nobody's but their owner's unless this is said (ALTER DEFAULT PRIVILEGES).
GRANT EXECUTE ON FUNCTION cutover_shards.commit(text), cutover_shards.abort(text), cutover_shards.kept(), cutover_shards.forget(text) TO PUBLIC;
`;

/** Takes all of it away again. May be called again. */
export const DROP_TWO_PHASE = 'DROP SCHEMA IF EXISTS cutover_shards CASCADE';

/** Before each of these; to die at in tests. */
export type TwoPhaseStep = 'decide' | 'prepare' | 'commit' | 'commitPrepared' | 'forget';

type OnStep = (step: TwoPhaseStep) => void | Promise<void>;

/** A session with an open transaction whose work is done. */
export interface Participant {
  /** the number of its shard */
  readonly shard: number;
  /** @throws an error with the server's `severity`, or another one when the session was lost */
  execute(sql: string): Promise<void>;
}

/** Of the names of all transactions that one shard decides, so that whoever finds one knows whom to ask. */
const prefixOf = (shard: number): string => `cutover_shards_${shard.toString()}_`;
const TRANSACTION = /^(cutover_shards_\d+_[0-9a-f-]+)_\d+$/;
/** It is gone (undefined_object), or another session is ending it (object_not_in_prerequisite_state). */
const ENDED_BY_ANOTHER: ReadonlySet<string | undefined> = new Set(['42704', '55000']);
/** A transaction that is being decided may be asked about; longer than this nobody waits for it. */
const DECIDING_LOCK_TIMEOUT_MS = 2_000;
const LOCK_NOT_AVAILABLE = '55P03';

/**
 * Commits the open transactions of all of them, or none.
 *
 * If the process dies before the commit of `first`: nothing is committed, and what is prepared is rolled back by whoever resolves. After
 * it: everything is committed, by this call or by whoever resolves.
 *
 * @param first where the decision is kept; has the functions of {@link TWO_PHASE_DDL}
 * @throws CutoverError `shards_not_committed`: nothing was changed; `shards_undecided`: the connection that decides was lost, so nobody
 *   here knows
 */
export async function commitOnAll(
  first: Participant,
  others: readonly Participant[],
  onStep: OnStep = () => undefined,
): Promise<void> {
  const transaction = prefixOf(first.shard) + randomUUID();
  // Each part has a name of its own: names are those of a server, and several shards may be on one.
  const parts = others.map((participant) => ({ participant, name: `${transaction}_${participant.shard.toString()}` }));
  try {
    await onStep('decide');
    // Before anything is prepared: whoever would resolve it waits for this row until the first part has ended.
    await first.execute(`SELECT cutover_shards.commit(${quoteLiteral(transaction)})`);
    await onAll(parts, async ({ participant, name }) => {
      await onStep('prepare');
      await participant.execute(`PREPARE TRANSACTION ${quoteLiteral(name)}`);
    });
  } catch (error) {
    await Promise.allSettled([first.execute('ROLLBACK'), ...parts.map(takeBack)]);
    throw new CutoverError('shards_not_committed', { problem: messageOf(error) }, { cause: error });
  }
  await decide(first, parts, onStep);
  // It is committed: what cannot be ended here is ended by whoever resolves.
  try {
    await onAll(parts, async ({ participant, name }) => {
      await onStep('commitPrepared');
      await participant.execute(`COMMIT PREPARED ${quoteLiteral(name)}`);
    });
    await onStep('forget');
    await first.execute(`${NOT_FLUSHED}; SELECT cutover_shards.forget(${quoteLiteral(transaction)})`);
  } catch {
    // Whoever resolves finds what is left of it.
  }
}

/** Nothing depends on it: a row that comes back in a crash is forgotten by whoever resolves. */
const NOT_FLUSHED = 'SET LOCAL synchronous_commit = off';

/** At the same time; all are waited for, since one that is still at work could not be taken back. */
async function onAll(parts: readonly Part[], work: (part: Part) => Promise<void>): Promise<void> {
  const outcomes = await Promise.allSettled(parts.map(work));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

interface Part {
  readonly participant: Participant;
  /** of what it prepares */
  readonly name: string;
}

/** The one moment: after it the transaction is committed. */
async function decide(first: Participant, parts: readonly Part[], onStep: OnStep): Promise<void> {
  try {
    await onStep('commit');
    // Not of a transaction that has failed, which would be rolled back without an error: it has just written the decision.
    await first.execute('COMMIT');
  } catch (error) {
    // Whoever is shut down may have committed before: only an ERROR, which leaves the session alive, says that nothing was.
    if ((error as { severity?: string }).severity !== 'ERROR')
      throw new CutoverError('shards_undecided', { problem: messageOf(error) }, { cause: error });
    await Promise.allSettled(parts.map(takeBack));
    throw new CutoverError('shards_not_committed', { problem: messageOf(error) }, { cause: error });
  }
}

async function takeBack({ participant, name }: Part): Promise<void> {
  await participant.execute('ROLLBACK');
  // There is none where the preparing failed: that is an error, and no harm.
  await participant.execute(`ROLLBACK PREPARED ${quoteLiteral(name)}`);
}

/** How many prepared transactions were ended, and how. */
export interface Resolved {
  readonly committed: number;
  readonly aborted: number;
}

/**
 * Ends what earlier processes left prepared and shard `shard` decides. All connections are of the role whose transactions these are;
 * none is in a transaction. May be called again, and by several at once.
 *
 * @param first of the shard that decides
 * @param others of all other shards
 * @param olderThanMs younger ones are left to who is at work on them
 */
export async function resolveLeftBehind(
  shard: number,
  first: Connection,
  others: readonly Connection[],
  olderThanMs: number,
): Promise<Resolved> {
  const resolved = { committed: 0, aborted: 0 };
  // Before what is prepared is looked at: of what is decided by now every part was prepared before.
  const kept = await first.query<{ transaction: string }>('SELECT cutover_shards.kept() AS transaction');
  await first.query(`SET lock_timeout = ${DECIDING_LOCK_TIMEOUT_MS.toString()}`);
  for (const other of others) {
    for (const { transaction, name } of await leftBehind(other, prefixOf(shard), olderThanMs)) {
      const outcome = await decided(first, transaction);
      if (outcome === null) continue;
      const verb = outcome === 'committed' ? 'COMMIT' : 'ROLLBACK';
      await other.query(`${verb} PREPARED ${quoteLiteral(name)}`).catch((error: unknown) => {
        if (!ENDED_BY_ANOTHER.has((error as { code?: string }).code)) throw error;
      });
      resolved[verb === 'COMMIT' ? 'committed' : 'aborted'] += 1;
    }
  }
  for (const { transaction } of kept.rows) {
    const prepared = await Promise.all(others.map((other) => isPrepared(other, transaction)));
    if (!prepared.includes(true)) await first.query('SELECT cutover_shards.forget($1)', [transaction]);
  }
  return resolved;
}

/** Decides where nobody has; null: its first part has not ended, so it is not left behind. */
async function decided(first: Connection, transaction: string): Promise<string | null> {
  try {
    const asked = 'SELECT cutover_shards.abort($1) AS outcome';
    return (await first.query<{ outcome: string }>(asked, [transaction])).rows[0]?.outcome ?? null;
  } catch (error) {
    if ((error as { code?: string }).code === LOCK_NOT_AVAILABLE) return null;
    throw error;
  }
}

/** The roles of which something has been left prepared here, for longer than that. */
export async function ownersLeftBehind(connection: Connection, olderThanMs: number): Promise<readonly string[]> {
  const { rows } = await connection.query<{ owner: string }>(
    `SELECT DISTINCT owner FROM pg_prepared_xacts WHERE database = current_database() AND gid ~ '^cutover_shards_\\d+_'
       AND prepared < clock_timestamp() - make_interval(secs => $1::float8 / 1000) ORDER BY 1 LIMIT 100`,
    [olderThanMs],
  );
  return rows.map(({ owner }) => owner);
}

async function isPrepared(connection: Connection, transaction: string): Promise<boolean> {
  const { rows } = await connection.query(
    'SELECT FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, $1) LIMIT 1',
    [`${transaction}_`],
  );
  return rows.length > 0;
}

async function leftBehind(
  connection: Connection,
  prefix: string,
  olderThanMs: number,
): Promise<readonly { readonly transaction: string; readonly name: string }[]> {
  const { rows } = await connection.query<{ gid: string }>(
    `SELECT gid FROM pg_prepared_xacts
     WHERE database = current_database() AND owner = session_user AND starts_with(gid, $1)
       AND prepared < clock_timestamp() - make_interval(secs => $2::float8 / 1000)
     ORDER BY prepared LIMIT 1000`,
    [prefix, olderThanMs],
  );
  return rows.flatMap(({ gid }) => {
    const transaction = TRANSACTION.exec(gid)?.[1];
    return transaction === undefined ? [] : [{ transaction, name: gid }];
  });
}
