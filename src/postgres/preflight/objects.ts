/** One task: the checks on objects that replication does not carry, or that a schema carries in a way to know about. */
import { bothSides, combined, failed, listed, ok, rowOf, rowsOf, warning } from './check.js';
import type { Finding, PreflightCheck, PreflightSide } from './check.js';

const LARGE_VIEW_BYTES = 1024 ** 3;

/** Large objects lie in a system catalog, which no publication can name (PostgreSQL documentation, 29.8). */
export const largeObjects: PreflightCheck = {
  id: 'large-objects',
  title: 'Large objects',
  async run({ source }) {
    const { n } = await rowOf<{ n: number }>(source, 'SELECT count(*)::float8 AS n FROM pg_largeobject_metadata');
    if (n === 0) return ok('There are none.');
    return failed(
      `The source has ${n.toString()} large objects: they are not replicated, and no fence can hold writes to them back.`,
      'Move their content into bytea columns, or remove what nobody uses (vacuumlo).',
    );
  },
};

export const materializedViews: PreflightCheck = {
  id: 'materialized-views',
  title: 'Materialised views',
  async run({ source }) {
    const rows = await rowsOf<{ name: string; bytes: number }>(
      source,
      `SELECT c.oid::regclass::text AS name, pg_relation_size(c.oid)::float8 AS bytes
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind = 'm' AND n.nspname <> 'cutover' ORDER BY 2 DESC, 1`,
    );
    if (rows.length === 0) return ok('There are none.');
    const large = rows.filter((row) => row.bytes > LARGE_VIEW_BYTES).map((row) => row.name);
    if (large.length > 0)
      return warning(
        `They are computed anew at the destination before the switch, which takes long for ${listed(large)}.`,
        'Allow for that time.',
      );
    return ok(`Computed anew at the destination before the switch: ${listed(rows.map((row) => row.name))}.`);
  },
};

export const foreignServers: PreflightCheck = {
  id: 'foreign-servers',
  title: 'Foreign servers',
  async run({ source }) {
    const rows = await rowsOf<{ name: string; tables: number }>(
      source,
      `SELECT s.srvname AS name, (SELECT count(*)::int FROM pg_foreign_table t WHERE t.ftserver = s.oid) AS tables
       FROM pg_foreign_server s ORDER BY 1`,
    );
    if (rows.length === 0) return ok('There are none.');
    const names = rows.map((row) => `${row.name} (${row.tables.toString()} foreign tables)`);
    return warning(
      `The destination will use these as the source does: ${listed(names)}. Rows behind foreign tables do not move.`,
      'See that the destination reaches those servers, and that the passwords of user mappings still hold there.',
    );
  },
};

export const eventTriggers: PreflightCheck = {
  id: 'event-triggers',
  title: 'Event triggers',
  async run(context) {
    const findings: Finding[] = [];
    for (const side of bothSides(context)) {
      const names = await eventTriggersOf(side);
      if (names.length === 0) continue;
      if (side.role === 'source') findings.push(await sourceFinding(names, context.destination));
      else
        findings.push(
          warning(
            `Event triggers of the destination run when its schema is made: ${listed(names)}.`,
            'Disable them for the time of the move if they refuse or change DDL.',
          ),
        );
    }
    return findings.length > 0 ? combined(findings) : ok('There are none.');
  },
};

async function sourceFinding(names: readonly string[], destination: PreflightSide): Promise<Finding> {
  const { superuser } = await rowOf<{ superuser: boolean }>(
    destination,
    `SELECT current_setting('is_superuser') = 'on' AS superuser`,
  );
  if (superuser)
    return warning(
      `Event triggers are made at the destination after the copy: ${listed(names)}.`,
      'See that what they do is right there too.',
    );
  return failed(
    `Only a superuser can make event triggers, and the destination's schema_admin is none: ${listed(names)}.`,
    'Drop them on the source and make them at the destination yourself, or use a superuser.',
  );
}

async function eventTriggersOf(side: PreflightSide): Promise<readonly string[]> {
  const rows = await rowsOf<{ name: string }>(
    side,
    `SELECT evtname AS name FROM pg_event_trigger WHERE evtname !~ '^cutover_' AND evtenabled <> 'D' ORDER BY 1`,
  );
  return rows.map((row) => row.name);
}

export const tablespaces: PreflightCheck = {
  id: 'tablespaces',
  title: 'Tablespaces',
  async run({ source }) {
    const rows = await rowsOf<{ name: string }>(
      source,
      `SELECT DISTINCT s.spcname AS name FROM pg_class c JOIN pg_tablespace s ON s.oid = c.reltablespace
       WHERE c.relpersistence <> 't' AND s.spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1`,
    );
    if (rows.length === 0) return ok('Everything is in the default one.');
    return warning(
      `Objects in ${listed(rows.map((row) => row.name))} are made in the destination's default tablespace.`,
      'Move them after the cutover (ALTER TABLE … SET TABLESPACE) if they must lie elsewhere.',
    );
  },
};
