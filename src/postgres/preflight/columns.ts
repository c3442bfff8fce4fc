/** One task: the checks on columns whose values the server makes: generated and identity columns, and their sequences. */
import { quoteIdentifier } from '../connection.js';
import { SEQUENCE_GAP, SEQUENCES_TO_MOVE, withheldSequences } from '../sequences.js';
import {
  bothSides,
  combined,
  failed,
  listed,
  majorOf,
  ok,
  rowOf,
  rowsOf,
  tableParameters,
  tablesToMove,
  TABLES_TO_MOVE,
  versionOf,
  warning,
} from './check.js';
import type { Finding, PreflightCheck, PreflightContext, PreflightSide } from './check.js';

const VIRTUAL_SINCE_MAJOR = 18;
/** Measured: with REPLICA IDENTITY FULL, 18 refuses the application's UPDATE as a publisher; 15 and 17 do not. */
const FULL_REFUSED_SINCE_MAJOR = 18;

interface GeneratedRow {
  readonly name: string;
  readonly virtual: boolean;
  /** the column belongs to the index that tells the table's rows apart */
  readonly indexed: boolean;
  /** the whole row tells the table's rows apart */
  readonly full: boolean;
}

/** Generated columns are not replicated, the destination computes them (PostgreSQL documentation, 29.6). */
const GENERATED = `
  SELECT c.oid::regclass || '.' || quote_ident(a.attname) AS name, a.attgenerated = 'v' AS virtual,
    c.relreplident = 'f' AS full, EXISTS (SELECT FROM pg_index i
      WHERE i.indexrelid = pg_get_replica_identity_index(c.oid) AND a.attnum = ANY (i.indkey)) AS indexed
  FROM ${TABLES_TO_MOVE}
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped
  ORDER BY 1`;

export const generatedColumns: PreflightCheck = {
  id: 'generated-columns',
  title: 'Generated columns',
  async run(context) {
    const rows = await rowsOf<GeneratedRow>(context.source, GENERATED, tableParameters(await tablesToMove(context)));
    const major = majorOf(await versionOf(context.destination));
    const newest = Math.max(major, majorOf(await versionOf(context.source)));
    const virtual = rows.filter((row) => row.virtual).map((row) => row.name);
    const identifying = rows
      .filter((row) => row.indexed || (row.full && newest >= FULL_REFUSED_SINCE_MAJOR))
      .map((row) => row.name);
    const findings: Finding[] = [];
    if (virtual.length > 0 && major < VIRTUAL_SINCE_MAJOR)
      findings.push(
        failed(
          `PostgreSQL ${major.toString()} has no virtual generated columns: ${listed(virtual)}.`,
          'Make them STORED or plain columns, or choose a destination of version 18.',
        ),
      );
    if (identifying.length > 0)
      findings.push(
        failed(
          `A generated column is not replicated, so it cannot belong to a replica identity: ${listed(identifying)}.`,
          'Choose a replica identity (a primary key, a unique index) of plain columns.',
        ),
      );
    if (findings.length > 0) return combined(findings);
    return ok(rows.length === 0 ? 'There are none.' : `${rows.length.toString()}, computed anew at the destination.`);
  },
};

export const identityColumns: PreflightCheck = {
  id: 'identity-columns',
  title: 'Identity columns and sequences',
  async run(context) {
    const findings = [...(await withheldFindings(context)), ...(await endingFindings(context.source))];
    if (findings.length > 0) return combined(findings);
    const { n } = await rowOf<{ n: number }>(context.source, `SELECT count(*)::int AS n FROM ${SEQUENCES_TO_MOVE}`);
    return ok(`${n.toString()} sequences; each goes on past the source's last value.`);
  },
};

/** On both sides: each is read and set, since a rollback carries the values back. */
async function withheldFindings(context: PreflightContext): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const { role, connection } of bothSides(context)) {
    const withheld = await withheldSequences(connection);
    if (withheld.length === 0) continue;
    const admin = quoteIdentifier(connection.user ?? '');
    findings.push(
      failed(
        `The schema_admin of the ${role} may not read and set these sequences, whose values would be issued twice: ${listed(withheld)}.`,
        `On the ${role}: GRANT SELECT, UPDATE ON SEQUENCE ${withheld.join(', ')} TO ${admin};`,
      ),
    );
  }
  return findings;
}

/** The move skips SEQUENCE_GAP values for callers of nextval that no fence holds back; twice, with a rollback. */
async function endingFindings(source: PreflightSide): Promise<readonly Finding[]> {
  const rows = await rowsOf<{ name: string }>(
    source,
    `SELECT format('%I.%I', n.nspname, c.relname) AS name FROM ${SEQUENCES_TO_MOVE}
     WHERE NOT s.seqcycle AND CASE WHEN NOT has_sequence_privilege(s.seqrelid, 'USAGE, SELECT') THEN false
       WHEN s.seqincrement > 0 THEN s.seqmax::numeric - coalesce(pg_sequence_last_value(s.seqrelid), s.seqstart)
         < 2 * $1::numeric * s.seqincrement::numeric
       ELSE coalesce(pg_sequence_last_value(s.seqrelid), s.seqstart) - s.seqmin::numeric
         < 2 * $1::numeric * -s.seqincrement::numeric END
     ORDER BY 1`,
    [SEQUENCE_GAP],
  );
  if (rows.length === 0) return [];
  const names = rows.map((row) => row.name);
  return [
    warning(
      `A move skips ${SEQUENCE_GAP.toString()} values of each sequence, and these have hardly more left: ${listed(names)}.`,
      'Widen the column and the sequence (ALTER SEQUENCE … AS bigint) before the move.',
    ),
  ];
}
