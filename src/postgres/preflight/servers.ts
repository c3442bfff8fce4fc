/** One task: the checks on the two servers themselves: versions, identity, settings that a move rests on. */
import { automaticRows } from '../../config/replicas.js';
import { sameSide } from '../../cutover/side.js';
import { readIdentity } from '../record.js';
import { ORIGIN_SINCE } from '../streams.js';
import {
  bothSides,
  combined,
  failed,
  listed,
  majorOf,
  ok,
  rowOf,
  rowsOf,
  settingsOf,
  versionOf,
  warning,
} from './check.js';
import type { Finding, PreflightCheck, PreflightContext } from './check.js';

const MAJORS = { source: { lowest: 14, highest: 18 }, destination: { lowest: 15, highest: 18 } } as const;

export const versions: PreflightCheck = {
  id: 'versions',
  title: 'PostgreSQL versions',
  async run(context) {
    const findings: Finding[] = [];
    const known: number[] = [];
    for (const side of bothSides(context)) {
      const version = await versionOf(side);
      known.push(version);
      const { lowest, highest } = MAJORS[side.role];
      const major = majorOf(version);
      if (major >= lowest && major <= highest) continue;
      const range = `${lowest.toString()} to ${highest.toString()}`;
      findings.push(
        failed(`The ${side.role} is PostgreSQL ${major.toString()}.`, `Use a ${side.role} of version ${range}.`),
      );
    }
    const [source = 0, destination = 0] = known;
    findings.push(versionPair(source, destination));
    return combined(findings);
  },
};

function versionPair(source: number, destination: number): Finding {
  const pair = `PostgreSQL ${majorOf(source).toString()} to ${majorOf(destination).toString()}`;
  const back =
    source >= ORIGIN_SINCE && destination >= ORIGIN_SINCE
      ? 'the way back is made and proven before the pause'
      : 'the way back is made inside the pause, which it lengthens';
  if (majorOf(destination) >= majorOf(source)) return ok(`${pair}; ${back}.`);
  return warning(
    `${pair}; ${back}. The destination is older than the source.`,
    'What the older version does not know is refused when the schema is made, before the copy.',
  );
}

export const primaries: PreflightCheck = {
  id: 'primaries',
  title: 'Both servers accept writes',
  async run(context) {
    const findings: Finding[] = [];
    for (const side of bothSides(context)) {
      if (automaticRows(context.config.databases, side.name).length > 0) {
        findings.push(
          failed(
            `pgdog.toml leaves open which server of "${side.name}" is the primary (role = "auto").`,
            'Give the primary role = "primary" and the others role = "replica" for the time of the move.',
          ),
        );
        continue;
      }
      const row = await rowOf<{ recovering: boolean; readOnly: boolean }>(
        side,
        `SELECT pg_is_in_recovery() AS recovering, current_setting('default_transaction_read_only')::bool AS "readOnly"`,
      );
      if (row.recovering)
        findings.push(failed(`The ${side.role} is a standby.`, `Name the primary of "${side.name}" in pgdog.toml.`));
      else if (row.readOnly)
        findings.push(
          failed(`Transactions on the ${side.role} are read-only.`, 'Set default_transaction_read_only = off.'),
        );
    }
    return findings.length > 0 ? combined(findings) : ok('Both are primaries.');
  },
};

export const sameDatabase: PreflightCheck = {
  id: 'same-database',
  title: 'Two different databases',
  async run(context) {
    const source = await readIdentity(context.source.connection);
    const destination = await readIdentity(context.destination.connection);
    if (sameSide(source, destination))
      return failed('Source and destination are the same database.', 'Name another database as destination.');
    const sameCluster = source.systemIdentifier === destination.systemIdentifier;
    return ok(sameCluster ? 'Two databases of one cluster.' : 'Two clusters.');
  },
};

export const walLevel: PreflightCheck = {
  id: 'wal-level',
  title: 'WAL holds what logical replication needs',
  async run(context) {
    const findings: Finding[] = [];
    for (const side of bothSides(context)) {
      const level = (await settingsOf(side, ['wal_level'])).get('wal_level') ?? 'unknown';
      if (level === 'logical') continue;
      const why = side.role === 'source' ? 'nothing can be streamed from it' : 'there would be no way back';
      findings.push(
        failed(
          `wal_level on the ${side.role} is ${level}: ${why}.`,
          `Set wal_level = logical on the ${side.role} and restart it.`,
        ),
      );
    }
    return findings.length > 0 ? combined(findings) : ok('wal_level is logical on both sides.');
  },
};

export const durability: PreflightCheck = {
  id: 'fsync',
  title: 'A committed write survives a crash',
  async run(context) {
    const findings: Finding[] = [];
    for (const side of bothSides(context)) {
      const settings = await settingsOf(side, ['fsync', 'full_page_writes']);
      if (settings.get('fsync') !== 'on')
        findings.push(
          failed(
            `fsync is off on the ${side.role}: a crash could lose the decision which side serves.`,
            `Set fsync = on on the ${side.role}; a reload is enough.`,
          ),
        );
      if (settings.get('full_page_writes') !== 'on')
        findings.push(
          warning(
            `full_page_writes is off on the ${side.role}.`,
            'Set it on, unless the storage writes whole pages atomically.',
          ),
        );
    }
    return findings.length > 0 ? combined(findings) : ok('fsync is on on both sides.');
  },
};

export const sourceIsSubscriber: PreflightCheck = {
  id: 'source-is-subscriber',
  title: 'The source is fed by nobody else',
  async run({ source }) {
    const rows = await rowsOf<{ name: string }>(
      source,
      `SELECT subname AS name FROM pg_subscription
       WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND subname !~ '^cutover_' ORDER BY 1`,
    );
    if (rows.length === 0) return ok('The source has no subscriptions.');
    return failed(
      `The source is a subscriber itself (${listed(rows.map((r) => r.name))}): what reaches it this way would not reach the destination.`,
      'Move the subscriptions to the destination before the cutover, or drop them; then try again.',
    );
  },
};

export const cutoverSchema: PreflightCheck = {
  id: 'cutover-schema',
  title: 'The schema "cutover" is free',
  async run(context: PreflightContext) {
    const findings: Finding[] = [];
    for (const side of bothSides(context)) {
      const row = await rowOf<{ foreign: boolean }>(
        side,
        `SELECT to_regnamespace('cutover') IS NOT NULL AND to_regclass('cutover.layout') IS NULL
           AND EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('cutover')::oid
             AND relname <> 'schema_statement' AND relname !~ '^schema_statement_') AS foreign`,
      );
      if (row.foreign)
        findings.push(
          failed(
            `The ${side.role} has a schema "cutover" that Cutover did not make.`,
            'Rename that schema: Cutover keeps its record in a schema of this name.',
          ),
        );
    }
    return findings.length > 0 ? combined(findings) : ok('No foreign objects in it.');
  },
};
